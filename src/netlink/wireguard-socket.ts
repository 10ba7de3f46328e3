/** Conversations with a process that stands in for the kernel's WireGuard: one request a connection. */

import { connect, type Socket } from 'node:net'
import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import type { WireguardDevice } from './wireguard-device.ts'
import { decodeUapiAnswer, encodeUapiSet, UAPI_END, UAPI_GET } from './wireguard-uapi.ts'

/** Where wireguard-go and `wg` meet. */
const FOLDER = '/var/run/wireguard'

/** Milliseconds for a request and its answer. */
const TIMEOUT = 5000

/** Some 100,000 peers have 50 MB. */
const LONGEST_ANSWER = 256 * 1024 * 1024

export interface UapiOptions {
  readonly folder?: string | undefined
  /** Milliseconds. */
  readonly timeout?: number
}

/** The request was refused, or was not answered. */
export class UapiError extends Error {
  override readonly name = 'UapiError'
  /** Positive, as in errno(3). */
  readonly errno: number
  /** `EINVAL`; ENOENT and ECONNREFUSED: no process has the device. */
  readonly code: string
  /** `set=1 of wg0` */
  readonly operation: string

  constructor(errno: number, operation: string, sentence?: string, options?: ErrorOptions) {
    const [code, meaning] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, 'unknown error']
    super(`${operation}: ${code}: ${sentence ?? meaning}`, options)
    this.errno = errno
    this.code = code
    this.operation = operation
  }
}

/**
 * The device with that name.
 *
 * @throws {UapiError} {@link DecodeError}
 */
export async function readWireguardProcess(
  name: string,
  options: UapiOptions = {},
): Promise<WireguardDevice> {
  const device = await ask(name, 'get=1', UAPI_GET, options)
  return { name, ...device }
}

/**
 * Changes the device with that name. The process carries out line after line: what it refuses ends the change, and
 * what stood before it is done.
 *
 * @throws {UapiError} {@link DecodeError}
 */
export async function changeWireguardProcess(
  name: string,
  change: Omit<Partial<WireguardDevice>, 'ifindex' | 'name' | 'publicKey'>,
  options: UapiOptions = {},
): Promise<void> {
  await ask(name, 'set=1', encodeUapiSet(change), options)
}

async function ask(
  name: string,
  request: string,
  text: string,
  options: UapiOptions,
): Promise<WireguardDevice> {
  const { folder = FOLDER, timeout = TIMEOUT } = options
  if (!/^[^\s/]{1,15}$/.test(name)) throw new RangeError(`${JSON.stringify(name)} is not the name of a link`)
  const operation = `${request} of ${name}`
  const answer = await exchange(`${folder}/${name}.sock`, text, timeout, operation)
  const { errno, device } = decodeUapiAnswer(answer)
  if (errno !== 0) throw new UapiError(errno, operation, 'the process refused')
  return device
}

/** Sends the text and gives what comes back, up to the end of an answer. The connection is closed then. */
function exchange(path: string, text: string, timeout: number, operation: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const socket = connect({ path })
  const fail = (errno: number, sentence: string, cause?: unknown): void =>
    reject(new UapiError(errno, operation, sentence, { cause }))
  const timer = setTimeout(
    () => fail(constants.errno.ETIMEDOUT, `no answer on ${path} within ${timeout} ms`),
    timeout,
  )
  collect(socket, resolve, () =>
    fail(constants.errno.EMSGSIZE, `an answer of more than ${LONGEST_ANSWER} bytes`),
  )
  socket.once('error', (error: NodeJS.ErrnoException) =>
    fail(Math.abs(error.errno ?? constants.errno.EIO), error.message, error),
  )
  socket.once('close', () => fail(constants.errno.EPROTO, `${path} closed before the end of an answer`))
  socket.write(text)
  return promise.finally(() => {
    clearTimeout(timer)
    socket.destroy()
  })
}

function collect(socket: Socket, done: (answer: string) => void, tooLong: () => void): void {
  const chunks: string[] = []
  let length = 0
  // The end may come in pieces.
  let tail = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    chunks.push(chunk)
    length += chunk.length
    tail = (tail + chunk).slice(-40)
    if (length > LONGEST_ANSWER) tooLong()
    else if (UAPI_END.test(tail)) done(chunks.join(''))
  })
}
