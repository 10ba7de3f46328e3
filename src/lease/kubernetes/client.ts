/**
 * Calls to the API server: JSON over HTTP/1.1, on connections that are kept. A server that is busy says how long to wait,
 * and is given that time. What is kept there is not known here.
 */

import http, { type ClientRequest, type IncomingMessage } from 'node:http'
import https from 'node:https'
import { pause } from '../pause.ts'
import { observed, RegistryError, type RegistryObserver } from '../registry.ts'
import type { Cluster, Credentials } from './cluster.ts'
import { LineError, Lines } from './lines.ts'
import { textField } from './node.ts'

export interface ClientOptions {
  readonly cluster: Cluster
  /** How long a watch may be silent until it counts as dead. Milliseconds. */
  readonly silence?: number
  readonly observe?: RegistryObserver | undefined
}

/** The API server's own word: not 2xx. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  /** Of HTTP. */
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** Milliseconds without a byte until an answer counts as lost. */
const PATIENCE = 10_000

/**
 * The same of a watch. Bookmarks come each minute; but a server of 1.20 has none to send while nothing happens, and a
 * watch that is as good as any is begun anew.
 */
const SILENCE = 180_000

/** From the last byte to the first probe of TCP, and the next ones each second. Milliseconds. */
const PROBE_AFTER = 15_000

/** How often a call is made when the server says `Retry-After`, and how much of that is waited at most. Milliseconds. */
const ATTEMPTS = 4
const LONGEST_WAIT = 30_000

/** Bytes of one answer: 500 nodes of the largest size that etcd takes would have more, and no cluster has such. */
const LARGEST_ANSWER = 2 ** 28

interface Call {
  readonly method: 'GET' | 'PATCH'
  /** With its query. */
  readonly path: string
  /** JSON: a strategic merge patch. */
  readonly body?: string
}

export class KubernetesClient {
  readonly server: string
  readonly #options: ClientOptions
  readonly #agent: http.Agent

  constructor(options: ClientOptions) {
    this.#options = options
    this.server = options.cluster.server
    const kept = { keepAlive: true, keepAliveMsecs: PROBE_AFTER }
    this.#agent = this.server.startsWith('https:') ? new https.Agent(kept) : new http.Agent(kept)
  }

  /** @param verb As metrics and RBAC name it. @throws {RegistryError} `unavailable`; `statusOf` has the server's answer. */
  async call(verb: 'get' | 'list' | 'patch', call: Call, signal: AbortSignal): Promise<unknown> {
    const work = async (): Promise<unknown> => {
      const response = await this.#send(call, signal)
      return this.#parse(await this.#read(response, signal))
    }
    return observed(this.#options.observe, verb, work, () => performance.now())
  }

  /** The events of a watch, as they come; nothing at first, when it stands. @throws {RegistryError} also when it ends. */
  async *watch(path: string, signal: AbortSignal): AsyncGenerator<readonly unknown[]> {
    const response = await this.#send({ method: 'GET', path }, signal)
    const lines = new Lines()
    try {
      response.socket.setTimeout(this.#options.silence ?? SILENCE)
      yield []
      for await (const piece of response) yield lines.push(piece).map((line) => this.#parse(line))
    } catch (error) {
      throw this.#failure(error, signal)
    } finally {
      response.destroy()
    }
    throw new RegistryError('unavailable', `${this.server}: the watch has ended`)
  }

  close(): void {
    this.#agent.destroy()
  }

  /** The answer, once the server is not too busy, if it is a good one. */
  async #send(call: Call, signal: AbortSignal): Promise<IncomingMessage> {
    for (let attempt = 1; ; attempt++) {
      const response = await this.#request(call, signal)
      const status = response.statusCode ?? 0
      if (status >= 200 && status < 300) return response
      const text = await this.#read(response, signal)
      const wait = retryAfter(response)
      if (wait === undefined || attempt === ATTEMPTS) throw this.#refused(status, text)
      await pause(wait, signal)
      signal.throwIfAborted()
    }
  }

  /** On a connection that the server has just closed, again on another. */
  async #request(call: Call, signal: AbortSignal): Promise<IncomingMessage> {
    const credentials = await this.#options.cluster.credentials()
    for (;;) {
      let request: ClientRequest | undefined
      try {
        request = this.#open(call, credentials, signal)
        return await answerOf(request, call)
      } catch (error) {
        const isStale = request?.reusedSocket === true && codeOf(error) === 'ECONNRESET'
        if (!isStale) throw this.#failure(error, signal)
      }
    }
  }

  /** Throws at once for a token or a certificate that is none. */
  #open(call: Call, { token, ...tls }: Credentials, signal: AbortSignal): ClientRequest {
    const isHttps = this.server.startsWith('https:')
    const options: https.RequestOptions = {
      method: call.method,
      agent: this.#agent,
      signal,
      timeout: PATIENCE,
      headers: headersOf(token, call.body),
      ...(isHttps && tls),
    }
    return (isHttps ? https : http).request(new URL(this.server + call.path), options)
  }

  async #read(response: IncomingMessage, signal: AbortSignal): Promise<string> {
    const pieces: Buffer[] = []
    let length = 0
    try {
      for await (const piece of response) {
        pieces.push(piece)
        length += piece.length
        if (length > LARGEST_ANSWER) throw new LineError(`an answer of more than ${LARGEST_ANSWER} bytes`)
      }
    } catch (error) {
      throw this.#failure(error, signal)
    }
    return Buffer.concat(pieces).toString()
  }

  #parse(text: string): unknown {
    try {
      return JSON.parse(text)
    } catch (cause) {
      throw new RegistryError('unavailable', `${this.server}: its answer is not JSON`, { cause })
    }
  }

  /** @param text A Status object, or what a proxy says. */
  #refused(status: number, text: string): RegistryError {
    let message: string | undefined
    try {
      message = textField(JSON.parse(text), 'message')
    } catch {
      // Not the API server's own.
    }
    const cause = new ApiError(status, message || `HTTP status ${status}`)
    return new RegistryError('unavailable', `${this.server}: ${cause.message}`, { cause })
  }

  #failure(error: unknown, signal: AbortSignal): RegistryError {
    signal.throwIfAborted()
    if (error instanceof RegistryError) return error
    if (!(error instanceof Error)) throw error
    // Of several addresses that were tried, the message is empty and the code is not.
    const message = error.message || codeOf(error)
    return new RegistryError('unavailable', `${this.server}: ${message}`, { cause: error })
  }
}

/** The HTTP status, when it is the API server that refused. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof RegistryError && error.cause instanceof ApiError ? error.cause.status : undefined
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
}

/** Silence ends the request, or the answer that has begun. */
function answerOf(request: ClientRequest, { body }: Call): Promise<IncomingMessage> {
  const late = new Error(`no answer within ${PATIENCE / 1000} s`)
  // While the request is not yet sent, the socket's own time begins again.
  const timer = setTimeout(() => request.destroy(late), PATIENCE)
  return new Promise<IncomingMessage>((resolve, reject) => {
    request
      .on('error', reject)
      .once('response', (response) => {
        request.on('timeout', () => response.destroy(late))
        resolve(response)
      })
      .end(body)
  }).finally(() => clearTimeout(timer))
}

function headersOf(token: string | undefined, body: string | undefined): Readonly<Record<string, string>> {
  return {
    accept: 'application/json',
    'user-agent': 'tweed',
    ...(token !== undefined && { authorization: `Bearer ${token}` }),
    ...(body !== undefined && {
      'content-type': 'application/strategic-merge-patch+json',
      'content-length': `${Buffer.byteLength(body)}`,
    }),
  }
}

/** Milliseconds; undefined when it is not to be tried again. */
function retryAfter({ statusCode = 0, headers }: IncomingMessage): number | undefined {
  const seconds = Number(headers['retry-after'] ?? Number.NaN)
  const isBusy = statusCode === 429 || statusCode >= 500
  return isBusy && seconds >= 0 ? Math.min(seconds * 1000, LONGEST_WAIT) : undefined
}
