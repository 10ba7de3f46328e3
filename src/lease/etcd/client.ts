/**
 * Calls to etcd: one connection at a time to one of its endpoints, the next one when that fails; TLS; a token that is
 * fetched anew when etcd forgets it; a deadline on every call. What is kept in etcd is not known here.
 */

import { readFileSync } from 'node:fs'
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientOptions,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js'
import { observed, RegistryError, type RegistryObserver } from '../registry.ts'
import {
  AuthService,
  type WatchCreateRequest,
  type WatchRequest,
  type WatchResponse,
  WatchService,
} from './rpc.ts'

export interface EtcdConnection {
  /** URLs: `http` is clear text whatever `tls` says, `https` is TLS. `HOST:PORT` is what `tls` says. */
  readonly endpoints: readonly string[]
  /** Paths of PEM files, read again for each connection. Without a CA, those that Node knows. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string }
  readonly login?: { readonly user: string; readonly password: string }
  readonly observe?: RegistryObserver | undefined
}

/** Milliseconds from a call to its answer. */
const CALL_TIMEOUT = 5000

const OPTIONS: ClientOptions = {
  // A connection that went silent is noticed after 15 s. etcd closes those that ping every 5 s or more often.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 5000,
  // What a range or an event holds is bounded where it is asked for, not here: one big value must not stop the rest.
  'grpc.max_receive_message_length': -1,
  // A connection that is given up is closed, and not found again in a pool.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
}

/** The statuses that are etcd's answer: another endpoint would say the same. */
const ANSWERS: ReadonlySet<status> = new Set([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.RESOURCE_EXHAUSTED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNAUTHENTICATED,
])

/** A method of `rpc.ts` with one request and one answer. */
interface Method<Request, Answer> {
  readonly path: string
  readonly requestSerialize: (request: Request) => Buffer
  readonly responseDeserialize: (bytes: Buffer) => Answer
}

interface Connection {
  readonly endpoint: string
  readonly client: Client
  /** Why it was given up. */
  failure: RegistryError | undefined
}

export class EtcdClient {
  readonly #options: EtcdConnection
  /** Each with its scheme. */
  readonly #endpoints: readonly string[]
  #next = 0
  #connection: Connection | undefined
  #token: Promise<string> | undefined

  /** @throws {RegistryError} `invalid` for endpoints and TLS files that cannot go together. */
  constructor(options: EtcdConnection) {
    const { endpoints, tls } = options
    if (endpoints.length === 0) throw new RegistryError('invalid', 'etcd has no endpoint')
    if ((tls?.cert === undefined) !== (tls?.key === undefined)) {
      throw new RegistryError('invalid', 'a client certificate and its key go together')
    }
    this.#options = options
    this.#endpoints = endpoints.map((endpoint) =>
      parseEndpoint(endpoint, tls === undefined ? 'http' : 'https'),
    )
  }

  /** @throws {RegistryError} `unavailable` once each endpoint has failed; `statusOf` says how, when etcd answered. */
  async call<Request, Answer>(
    method: Method<Request, Answer>,
    request: Request,
    signal: AbortSignal,
  ): Promise<Answer> {
    const failures = new Map<string, RegistryError>()
    for (const _ of this.#endpoints) {
      const connection = this.#connect()
      try {
        const call = (): Promise<Answer> =>
          this.#authenticated(connection, signal, (metadata) =>
            unary(connection.client, method, request, metadata, signal),
          )
        const operation = method.path.slice(method.path.lastIndexOf('/') + 1)
        return await observed(this.#options.observe, operation, call, () => performance.now())
      } catch (error) {
        const failure = this.#failed(connection, error, signal)
        if (isAnswer(failure)) throw failure
        failures.set(connection.endpoint, failure)
      }
    }
    // In the order of the endpoints, so that the same trouble reads the same each time.
    const inOrder = this.#endpoints.flatMap((endpoint) => failures.get(endpoint) ?? [])
    throw new RegistryError('unavailable', inOrder.map(({ message }) => message).join('; '))
  }

  /** What happens in the ranges, on one stream, until it breaks. @throws {RegistryError} */
  async *watch(ranges: readonly WatchCreateRequest[], signal: AbortSignal): AsyncGenerator<WatchResponse> {
    const connection = this.#connect()
    let stream: ClientDuplexStream<WatchRequest, WatchResponse> | undefined
    const cancel = (): void => stream?.cancel()
    const impatience = setTimeout(cancel, CALL_TIMEOUT)
    signal.addEventListener('abort', cancel)
    try {
      const { path, requestSerialize, responseDeserialize } = WatchService.watch
      const metadata = await this.#metadata(connection, signal)
      stream = connection.client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata)
      // Cancelled below, it says so to whom it may concern: nobody.
      stream.on('error', () => undefined)
      for (const create of ranges) stream.write({ request: { $case: 'create', create } })
      for await (const response of stream as AsyncIterable<WatchResponse>) {
        clearTimeout(impatience)
        yield response
      }
      throw new RegistryError('unavailable', `${connection.endpoint}: etcd ended the watch`)
    } catch (error) {
      throw this.#failed(connection, error, signal)
    } finally {
      clearTimeout(impatience)
      signal.removeEventListener('abort', cancel)
      cancel()
    }
  }

  close(): void {
    this.#connection?.client.close()
    this.#connection = undefined
  }

  #connect(): Connection {
    if (this.#connection !== undefined) return this.#connection
    const endpoint = this.#endpoints[this.#next % this.#endpoints.length] ?? ''
    const { protocol, host, port } = new URL(endpoint)
    const secure = protocol === 'https:'
    const target = `dns:${port === '' ? `${host}:${secure ? 443 : 80}` : host}`
    const security = secure ? secureCredentials(this.#options.tls) : credentials.createInsecure()
    this.#connection = { endpoint, client: new Client(target, security, OPTIONS), failure: undefined }
    return this.#connection
  }

  /** Runs the call, again with a new token if etcd does not know the one that it had. */
  async #authenticated<T>(
    connection: Connection,
    signal: AbortSignal,
    work: (metadata: Metadata) => Promise<T>,
  ): Promise<T> {
    const metadata = await this.#metadata(connection, signal)
    const token = this.#token
    try {
      return await work(metadata)
    } catch (error) {
      if (token === undefined || !isStaleToken(error)) throw error
      if (this.#token === token) this.#token = undefined
      return work(await this.#metadata(connection, signal))
    }
  }

  async #metadata({ client }: Connection, signal: AbortSignal): Promise<Metadata> {
    const metadata = new Metadata()
    // A member that lost its leader refuses then, instead of answering from what it has or not at all.
    metadata.set('hasleader', 'true')
    if (this.#options.login === undefined) return metadata
    this.#token ??= authenticate(client, this.#options.login, metadata)
    const token = this.#token
    try {
      metadata.set('token', await token)
    } catch (error) {
      if (this.#token === token) this.#token = undefined
      throw error
    }
    signal.throwIfAborted()
    return metadata
  }

  /** What a failed call means. Unless etcd answered, the next call goes to the next endpoint. */
  #failed(connection: Connection, error: unknown, signal: AbortSignal): RegistryError {
    signal.throwIfAborted()
    if (!isServiceError(error) && !(error instanceof RegistryError)) throw error
    const failure = isServiceError(error) ? unavailable(connection.endpoint, error) : error
    if (isAnswer(failure)) return failure
    // What else was under way there only hears that the connection was closed.
    if (connection.failure !== undefined) return connection.failure
    connection.failure = failure
    if (this.#connection === connection) {
      this.close()
      this.#next++
    }
    return failure
  }
}

/** etcd's status, when it is etcd that answered. */
export function statusOf(error: unknown): status | undefined {
  return error instanceof RegistryError && isServiceError(error.cause) ? error.cause.code : undefined
}

function isAnswer(error: RegistryError): boolean {
  const code = statusOf(error)
  return code !== undefined && ANSWERS.has(code)
}

/** Expired, or issued before the users changed. */
function isStaleToken(error: unknown): boolean {
  if (!isServiceError(error)) return false
  return error.code === status.UNAUTHENTICATED || error.details.includes('auth store is old')
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error
}

function unary<Request, Answer>(
  client: Client,
  { path, requestSerialize, responseDeserialize }: Method<Request, Answer>,
  request: Request,
  metadata: Metadata,
  signal: AbortSignal,
): Promise<Answer> {
  signal.throwIfAborted()
  return new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      { deadline: Date.now() + CALL_TIMEOUT },
      (error, answer) => {
        signal.removeEventListener('abort', cancel)
        if (answer === undefined) reject(error ?? new Error('neither an answer nor an error'))
        else resolve(answer)
      },
    )
    const cancel = (): void => call.cancel()
    signal.addEventListener('abort', cancel)
  })
}

/** Its own signal: others wait for the token, too. */
async function authenticate(
  client: Client,
  { user, password }: { readonly user: string; readonly password: string },
  metadata: Metadata,
): Promise<string> {
  const request = { name: user, password }
  const { signal } = new AbortController()
  return (await unary(client, AuthService.authenticate, request, metadata.clone(), signal)).token
}

/** @throws {RegistryError} `unavailable`: files are renewed, and may be half there. */
function secureCredentials({ ca, cert, key }: EtcdConnection['tls'] = {}): ChannelCredentials {
  const read = (path: string | undefined): Buffer | null => (path === undefined ? null : readFileSync(path))
  try {
    return credentials.createSsl(read(ca), read(key), read(cert))
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new RegistryError('unavailable', `the TLS files cannot be used: ${message}`, { cause })
  }
}

/** @throws {RegistryError} `invalid` */
function parseEndpoint(text: string, scheme: 'http' | 'https'): string {
  const url = /^https?:\/\//.test(text) ? text : `${scheme}://${text}`
  if (/^https?:\/\/[^/?#@]+\/?$/.test(url) && URL.canParse(url)) return url
  throw new RegistryError(
    'invalid',
    `${JSON.stringify(text)} is not an endpoint of etcd such as http://HOST:2379`,
  )
}

/** In words that are the same each time. */
function unavailable(endpoint: string, error: ServiceError): RegistryError {
  const late = error.code === status.DEADLINE_EXCEEDED || error.code === status.CANCELLED
  const problem = late
    ? `no answer within ${CALL_TIMEOUT / 1000} s`
    : error.details.replace(
        /^No connection established\. Last error: (.*?)\.? *(Resolution note:.*)?$/s,
        '$1',
      )
  return new RegistryError('unavailable', `${endpoint}: ${problem}`, { cause: error })
}
