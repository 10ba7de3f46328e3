/**
 * gRPC over HTTP/2 (grpc/grpc, doc/PROTOCOL-HTTP2.md), as much of it as etcd needs: calls with one answer, and streams of
 * messages both ways, without compression. docs/adr/0014-grpc.md says why this is not a library.
 *
 * A message is a byte 0, its length as 4 bytes big endian, and its bytes. A call ends with `grpc-status` in the trailers,
 * or in the headers when there is nothing else.
 */

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2'
import type { SecureContextOptions } from 'node:tls'

/** Those of grpc/grpc, doc/statuscodes.md, that mean something here. */
export const status = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  OUT_OF_RANGE: 11,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const

/** A call that failed: the server's status and sentence, or UNAVAILABLE and what happened to the connection. */
export class GrpcError extends Error {
  override readonly name = 'GrpcError'
  /** One of `status`, or another number of gRPC's. */
  readonly code: number

  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Header fields by lower-case name. */
export type Metadata = Readonly<Record<string, string>>

/** A stream of messages. */
export interface Duplex {
  write(message: Uint8Array): void
  /** Ends when the server says that all went well. @throws {GrpcError} */
  readonly messages: AsyncIterable<Buffer>
  cancel(): void
}

/** What a stream tells. `ended` comes once, and last. */
interface Receiver {
  readonly message: (bytes: Buffer) => void
  readonly ended: (error: GrpcError | undefined) => void
}

/** Milliseconds. While calls are under way, a connection that went silent is noticed after both. */
const PING_INTERVAL = 10_000
const PING_TIMEOUT = 5000

const PREFIX = 5
/** Bytes under way: a page of keys is not to wait for the window to be opened again. */
const WINDOW = 4 * 1024 * 1024
/** MB that a session may hold, events of a long outage included. */
const SESSION_MEMORY = 256

/** A connection to one server, made when it is needed, and again when it broke. */
export class Channel {
  readonly #url: string
  readonly #tls: SecureContextOptions
  #session: ClientHttp2Session | undefined
  /** Why the last connection broke. */
  #failure: Error | undefined
  #streams = 0
  #ping: NodeJS.Timeout | undefined

  /** @param url `http://HOST:PORT`, or `https:` with TLS. */
  constructor(url: string, tls: SecureContextOptions = {}) {
    this.#url = url
    this.#tls = tls
  }

  /** @param timeout Milliseconds. @throws {GrpcError} */
  unary(
    path: string,
    request: Uint8Array,
    { metadata, timeout, signal }: { metadata: Metadata; timeout: number; signal: AbortSignal },
  ): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      let answer: Buffer | undefined
      const give = (error: GrpcError | undefined): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
        if (error !== undefined) reject(error)
        else if (answer !== undefined) resolve(answer)
        else reject(new GrpcError(status.INTERNAL, 'neither an answer nor an error'))
      }
      const message = (bytes: Buffer): void => {
        answer = bytes
      }
      const stream = this.#start(path, metadata, { message, ended: give })
      const end = (code: number, why: string): void => {
        give(new GrpcError(code, why))
        stream.close(constants.NGHTTP2_CANCEL)
      }
      const abort = (): void => end(status.CANCELLED, 'the call was cancelled')
      const timer = setTimeout(() => end(status.DEADLINE_EXCEEDED, `no answer within ${timeout} ms`), timeout)
      signal.addEventListener('abort', abort)
      stream.end(frame(request))
    })
  }

  duplex(path: string, metadata: Metadata): Duplex {
    const queue: Buffer[] = []
    let end: { readonly error: GrpcError | undefined } | undefined
    let wake: (() => void) | undefined
    const stream = this.#start(path, metadata, {
      message(bytes) {
        queue.push(bytes)
        wake?.()
      },
      ended(error) {
        end ??= { error }
        wake?.()
      },
    })
    async function* messages(): AsyncGenerator<Buffer, void> {
      for (;;) {
        yield* queue.splice(0)
        if (queue.length > 0) continue
        if (end?.error !== undefined) throw end.error
        if (end !== undefined) return
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    }
    return {
      write: (message) => void stream.write(frame(message)),
      messages: messages(),
      cancel: () => stream.close(constants.NGHTTP2_CANCEL),
    }
  }

  close(): void {
    clearInterval(this.#ping)
    this.#session?.destroy()
    this.#session = undefined
  }

  #start(path: string, metadata: Metadata, receiver: Receiver): ClientHttp2Stream {
    const session = this.#connect()
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...metadata,
    })
    const messages = new Messages()
    let said: IncomingHttpHeaders = {}
    let failure: Error | undefined
    this.#count(session, 1)
    stream.on('response', (headers) => {
      said = headers
    })
    stream.on('trailers', (trailers) => {
      said = { ...said, ...trailers }
    })
    stream.on('data', (chunk: Buffer) => {
      for (const message of messages.take(chunk)) receiver.message(message)
    })
    stream.on('error', (error) => {
      failure = error
    })
    stream.on('close', () => {
      this.#count(session, -1)
      receiver.ended(outcome(said, this.#failure ?? rootOf(failure)))
    })
    return stream
  }

  #connect(): ClientHttp2Session {
    if (this.#session?.closed === false && !this.#session.destroyed) return this.#session
    this.#failure = undefined
    const session = connect(this.#url, {
      ...this.#tls,
      maxSessionMemory: SESSION_MEMORY,
      settings: { enablePush: false, initialWindowSize: WINDOW },
    })
    this.#session = session
    this.#streams = 0
    session.on('connect', () => session.setLocalWindowSize(WINDOW))
    session.on('error', (error) => {
      if (session === this.#session) this.#failure = error
    })
    return session
  }

  /** A server takes it amiss when it is pinged without a call under way, or more often than it wants. */
  #count(session: ClientHttp2Session, step: 1 | -1): void {
    if (session !== this.#session) return
    this.#streams += step
    if (this.#streams === 0) clearInterval(this.#ping)
    if (this.#streams === 1 && step === 1) {
      clearInterval(this.#ping)
      this.#ping = setInterval(() => ping(session), PING_INTERVAL).unref()
    }
  }
}

function ping(session: ClientHttp2Session): void {
  if (session.destroyed || session.connecting) return
  const silent = new Error(`no answer to a ping within ${PING_TIMEOUT / 1000} s`)
  const timer = setTimeout(() => session.destroy(silent), PING_TIMEOUT).unref()
  session.ping(() => clearTimeout(timer))
}

/** A stream that ends with its connection names the reason as its cause. */
function rootOf(failure: Error | undefined): Error | undefined {
  return failure?.cause instanceof Error ? failure.cause : failure
}

/** What a call came to; undefined when all went well. */
function outcome(said: IncomingHttpHeaders, failure: Error | undefined): GrpcError | undefined {
  const code = said['grpc-status']
  if (code === '0') return undefined
  if (typeof code === 'string') return new GrpcError(Number(code), decodeMessage(said['grpc-message']))
  // Node gives it as a number.
  const http = Number(said[':status'] ?? 200)
  const why =
    failure?.message ?? (http === 200 ? 'the connection was closed' : `it answers with HTTP status ${http}`)
  return new GrpcError(status.UNAVAILABLE, why, { cause: failure })
}

/** Percent-encoded, as far as it could be. */
function decodeMessage(text: string | string[] | undefined): string {
  try {
    return decodeURIComponent(String(text ?? ''))
  } catch {
    return String(text)
  }
}

function frame(message: Uint8Array): Buffer {
  const bytes = Buffer.alloc(PREFIX + message.length)
  bytes.writeUInt32BE(message.length, 1)
  bytes.set(message, PREFIX)
  return bytes
}

/** Messages out of the chunks in which they come. */
class Messages {
  #chunks: Buffer[] = []
  #length = 0

  take(chunk: Buffer): Buffer[] {
    this.#chunks.push(chunk)
    this.#length += chunk.length
    const complete: Buffer[] = []
    for (let message = this.#next(); message !== undefined; message = this.#next()) complete.push(message)
    return complete
  }

  #next(): Buffer | undefined {
    if (this.#length < PREFIX) return undefined
    const [first = Buffer.alloc(0)] = this.#chunks
    const head = first.length < PREFIX ? this.#join() : first
    const end = PREFIX + head.readUInt32BE(1)
    if (this.#length < end) return undefined
    const bytes = this.#join()
    this.#chunks = bytes.length === end ? [] : [bytes.subarray(end)]
    this.#length -= end
    return bytes.subarray(PREFIX, end)
  }

  #join(): Buffer {
    const bytes = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks)
    this.#chunks = [bytes ?? Buffer.alloc(0)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }
}
