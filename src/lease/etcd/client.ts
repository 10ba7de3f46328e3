/**
 * Calls to etcd: one connection at a time to one of its endpoints, the next one when that fails; TLS; a token that is
 * fetched anew when etcd forgets it; a deadline on every call. What is kept in etcd is not known here.
 */

import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import { observed, RegistryError, type RegistryObserver } from '../registry.ts'
import { Channel, type Duplex, GrpcError, type Metadata, status } from './grpc.ts'
import { AUTHENTICATE, type Method, WATCH } from './methods.ts'
import type { WatchCreateRequest, WatchResponse } from './rpc.ts'

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

/** A member that lost its leader refuses then, instead of answering from what it has or not at all. */
const WITH_LEADER: Metadata = { hasleader: 'true' }

/** The statuses that are etcd's answer: another endpoint would say the same. */
const ANSWERS: ReadonlySet<number> = new Set([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.RESOURCE_EXHAUSTED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNAUTHENTICATED,
])

interface Connection {
  readonly endpoint: string
  readonly channel: Channel
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
            unary(connection.channel, method, request, metadata, signal),
          )
        return await observed(this.#options.observe, method.name, call, () => performance.now())
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
    let stream: Duplex | undefined
    let late = false
    const cancel = (): void => stream?.cancel()
    const impatience = setTimeout(() => {
      late = true
      cancel()
    }, CALL_TIMEOUT)
    signal.addEventListener('abort', cancel)
    try {
      stream = connection.channel.duplex(WATCH.path, await this.#metadata(connection, signal))
      for (const create of ranges) stream.write(WATCH.encode({ request: { $case: 'create', create } }))
      for await (const message of stream.messages) {
        clearTimeout(impatience)
        yield read(WATCH, message)
      }
      throw new RegistryError('unavailable', `${connection.endpoint}: etcd ended the watch`)
    } catch (error) {
      const failure = late ? new GrpcError(status.DEADLINE_EXCEEDED, 'the watch does not begin') : error
      throw this.#failed(connection, failure, signal)
    } finally {
      clearTimeout(impatience)
      signal.removeEventListener('abort', cancel)
      cancel()
    }
  }

  close(): void {
    this.#connection?.channel.close()
    this.#connection = undefined
  }

  #connect(): Connection {
    if (this.#connection !== undefined) return this.#connection
    const endpoint = this.#endpoints[this.#next % this.#endpoints.length] ?? ''
    const tls = endpoint.startsWith('https:') ? readTls(this.#options.tls) : {}
    this.#connection = { endpoint, channel: new Channel(endpoint, tls), failure: undefined }
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

  async #metadata({ channel }: Connection, signal: AbortSignal): Promise<Metadata> {
    if (this.#options.login === undefined) return WITH_LEADER
    this.#token ??= authenticate(channel, this.#options.login)
    const pending = this.#token
    try {
      const token = await pending
      signal.throwIfAborted()
      return { ...WITH_LEADER, token }
    } catch (error) {
      if (this.#token === pending) this.#token = undefined
      throw error
    }
  }

  /** What a failed call means. Unless etcd answered, the next call goes to the next endpoint. */
  #failed(connection: Connection, error: unknown, signal: AbortSignal): RegistryError {
    signal.throwIfAborted()
    if (!(error instanceof GrpcError) && !(error instanceof RegistryError)) throw error
    const failure = error instanceof GrpcError ? unavailable(connection.endpoint, error) : error
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

/** etcd's status, when it is etcd that answered: one of `status`. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof RegistryError && error.cause instanceof GrpcError ? error.cause.code : undefined
}

function isAnswer(error: RegistryError): boolean {
  const code = statusOf(error)
  return code !== undefined && ANSWERS.has(code)
}

/** Expired, or issued before the users changed. */
function isStaleToken(error: unknown): boolean {
  if (!(error instanceof GrpcError)) return false
  return error.code === status.UNAUTHENTICATED || error.message.includes('auth store is old')
}

async function unary<Request, Answer>(
  channel: Channel,
  method: Method<Request, Answer>,
  request: Request,
  metadata: Metadata,
  signal: AbortSignal,
): Promise<Answer> {
  signal.throwIfAborted()
  const options = { metadata, timeout: CALL_TIMEOUT, signal }
  return read(method, await channel.unary(method.path, method.encode(request), options))
}

/** @throws {GrpcError} when the bytes are no such answer: what sent them is not to be trusted with the next call. */
function read<Answer>({ decode }: Pick<Method<never, Answer>, 'decode'>, bytes: Buffer): Answer {
  try {
    return decode(bytes)
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new GrpcError(status.INTERNAL, `its answer cannot be read: ${message}`, { cause })
  }
}

/** Its own signal: others wait for the token, too. */
async function authenticate(
  channel: Channel,
  { user, password }: { readonly user: string; readonly password: string },
): Promise<string> {
  const { signal } = new AbortController()
  return (await unary(channel, AUTHENTICATE, { name: user, password }, WITH_LEADER, signal)).token
}

/** @throws {RegistryError} `unavailable`: files are renewed, and may be half there. */
function readTls({ ca, cert, key }: EtcdConnection['tls'] = {}): SecureContextOptions {
  const read = (path: string | undefined): Buffer | undefined =>
    path === undefined ? undefined : readFileSync(path)
  try {
    const options = { ca: read(ca), cert: read(cert), key: read(key) }
    createSecureContext(options)
    return options
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
function unavailable(endpoint: string, error: GrpcError): RegistryError {
  const late = error.code === status.DEADLINE_EXCEEDED || error.code === status.CANCELLED
  const problem = late ? `no answer within ${CALL_TIMEOUT / 1000} s` : error.message
  return new RegistryError('unavailable', `${endpoint}: ${problem}`, { cause: error })
}
