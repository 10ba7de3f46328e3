/**
 * Netlink messages (linux/netlink.h `struct nlmsghdr`): a datagram holds many, an answer is many or an error.
 *
 * The header, 16 bytes in host order: u32 length with the header, u16 type, u16 flags, u32 sequence, u32 port.
 * Messages begin at multiples of 4.
 */

import { constants } from 'node:os'
import { align, DecodeError, LITTLE_ENDIAN, Reader } from './attribute.ts'
import { messageTypeName } from './rtnetlink.ts'

export const NLMSG_NOOP = 1
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
export const NLMSG_OVERRUN = 4

export const NLM_F_REQUEST = 0x1
export const NLM_F_MULTI = 0x2
export const NLM_F_ACK = 0x4
/** The dump was interrupted by a change: what it gave may be inconsistent. */
export const NLM_F_DUMP_INTR = 0x10
export const NLM_F_DUMP_FILTERED = 0x20
/** On a GET request. */
export const NLM_F_DUMP = 0x300
/** On a NEW request. */
export const NLM_F_REPLACE = 0x100
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800
/** On an error: the request is not repeated behind its header (NETLINK_CAP_ACK), and attributes follow. */
export const NLM_F_CAPPED = 0x100
export const NLM_F_ACK_TLVS = 0x200

const NLMSGERR_ATTR_MSG = 1
const HEADER = 16

/** A received message. The payload is a view into the datagram: decode it before the buffer is used again. */
export interface Message {
  readonly type: number
  readonly flags: number
  readonly sequence: number
  readonly port: number
  readonly payload: Uint8Array
}

/** A message to send. NLM_F_REQUEST is in the flags; NLM_F_ACK is the sender's decision. */
export interface Request {
  readonly type: number
  readonly flags: number
  readonly payload: Uint8Array
  /** `WG_CMD_SET_DEVICE`: its name in an error, where the type does not tell it (generic netlink). */
  readonly operation?: string | undefined
}

/** What the kernel answered instead of doing what it was asked for. */
export class NetlinkError extends Error {
  override readonly name = 'NetlinkError'
  /** Positive, as in errno(3). */
  readonly errno: number
  /** `EEXIST` */
  readonly code: string
  /** `RTM_NEWLINK` */
  readonly operation: string
  /** The kernel's own sentence (extended ACK), where it has one. */
  readonly kernelMessage: string | undefined

  constructor(errno: number, operation: string, kernelMessage: string | undefined) {
    const code = ERRNO_NAMES.get(errno) ?? `errno ${errno}`
    super(kernelMessage === undefined ? `${operation}: ${code}` : `${operation}: ${code}: ${kernelMessage}`)
    this.errno = errno
    this.code = code
    this.operation = operation
    this.kernelMessage = kernelMessage
  }
}

/** The messages of a datagram, in order. @throws {DecodeError} */
export function splitMessages(bytes: Uint8Array): Message[] {
  const reader = new Reader(bytes, bytes.length)
  const messages: Message[] = []
  for (let start = 0; start < bytes.length; ) {
    const length = reader.u32(start)
    if (length < HEADER || length > bytes.length - start) {
      throw new DecodeError(start, `a message of length ${length}, ${bytes.length - start} bytes are left`)
    }
    messages.push({
      type: reader.u16(start + 4),
      flags: reader.u16(start + 6),
      sequence: reader.u32(start + 8),
      port: reader.u32(start + 12),
      payload: bytes.subarray(start + HEADER, start + length),
    })
    start += align(length)
  }
  return messages
}

/** A datagram of one message. */
export function encodeMessage(request: Request, sequence: number): Uint8Array {
  const datagram = new Datagram(HEADER + align(request.payload.length))
  datagram.add(request)
  return datagram.finish(sequence)
}

/**
 * A datagram of many messages. Each is copied as it is added, so that a request need not outlive its addition; and the
 * memory is used again for the next datagram.
 */
export class Datagram {
  #bytes: Uint8Array
  #view: DataView
  #length = 0
  #count = 0
  /** Of the messages that have one. */
  #operations: Map<number, string> | undefined

  /** @param size In bytes, at first. */
  constructor(size = 512) {
    this.#bytes = new Uint8Array(size)
    this.#view = new DataView(this.#bytes.buffer)
  }

  /** Of messages. */
  get count(): number {
    return this.#count
  }

  /** In bytes. */
  get length(): number {
    return this.#length
  }

  add({ type, flags, payload, operation }: Request): void {
    const start = this.#length
    const length = HEADER + payload.length
    this.#reserve(align(length))
    this.#view.setUint32(start, length, LITTLE_ENDIAN)
    this.#view.setUint16(start + 4, type, LITTLE_ENDIAN)
    this.#view.setUint16(start + 6, flags, LITTLE_ENDIAN)
    // What was there before is no zero.
    this.#view.setUint32(start + 12, 0, LITTLE_ENDIAN)
    this.#bytes.fill(0, start + length, this.#length)
    this.#bytes.set(payload, start + HEADER)
    if (operation !== undefined) (this.#operations ??= new Map()).set(this.#count, operation)
    this.#count++
  }

  /** `Request.operation` of the message with that number. */
  operation(i: number): string | undefined {
    return this.#operations?.get(i)
  }

  /**
   * All messages, with the sequence numbers `sequence`, `sequence + 1` … (modulo 2^32); valid until the next `add`.
   *
   * @param lastFlags Flags that the last one has besides.
   */
  finish(sequence: number, lastFlags = 0): Uint8Array {
    let start = 0
    for (let i = 0; i < this.#count; i++) {
      this.#view.setUint32(start + 8, sequence + i, LITTLE_ENDIAN)
      const flags = this.#view.getUint16(start + 6, LITTLE_ENDIAN)
      if (i === this.#count - 1) this.#view.setUint16(start + 6, flags | lastFlags, LITTLE_ENDIAN)
      start += align(this.#view.getUint32(start, LITTLE_ENDIAN))
    }
    return this.#bytes.subarray(0, this.#length)
  }

  /** Begins the next one. */
  clear(): void {
    this.#length = 0
    this.#count = 0
    this.#operations = undefined
  }

  /** Makes room at the end. */
  #reserve(size: number): void {
    const needed = this.#length + size
    if (needed > this.#bytes.length) {
      const bytes = new Uint8Array(2 * needed)
      bytes.set(this.#bytes)
      this.#bytes = bytes
      this.#view = new DataView(bytes.buffer)
    }
    this.#length = needed
  }
}

/**
 * The error in an NLMSG_ERROR, or in the NLMSG_DONE that ends a dump; undefined for success.
 *
 * NLMSG_ERROR: i32 -errno, the header of the request, without NLM_F_CAPPED also its payload, with NLM_F_ACK_TLVS
 * attributes. NLMSG_DONE: i32 -errno, with NLM_F_ACK_TLVS attributes.
 *
 * @param asked Name of the request, which NLMSG_DONE does not repeat, and the type does not tell in generic netlink.
 * @throws {DecodeError}
 */
export function decodeAck(message: Message, asked?: string): NetlinkError | undefined {
  const { payload, flags } = message
  const error = message.type === NLMSG_ERROR
  const reader = new Reader(payload, error ? 4 + HEADER : 4)
  const errno = -reader.i32(0)
  if (errno === 0) return undefined
  const operation = asked ?? (error ? messageTypeName(reader.u16(8)) : 'dump')
  if (!error) return new NetlinkError(errno, operation, kernelMessage(reader, flags))
  if ((flags & NLM_F_CAPPED) !== 0) return new NetlinkError(errno, operation, kernelMessage(reader, flags))
  const echo = new Reader(payload, 4 + align(reader.u32(4)))
  return new NetlinkError(errno, operation, kernelMessage(echo, flags))
}

function kernelMessage(reader: Reader, flags: number): string | undefined {
  if ((flags & NLM_F_ACK_TLVS) === 0) return undefined
  while (reader.next()) if (reader.type === NLMSGERR_ATTR_MSG) return reader.text()
  return undefined
}

/** Of two names for one number (EOPNOTSUPP and ENOTSUP, EAGAIN and EWOULDBLOCK) the kernel's own. */
const ERRNO_NAMES = new Map(
  Object.entries(constants.errno)
    .filter(([name]) => name !== 'ENOTSUP' && name !== 'EWOULDBLOCK')
    .map(([name, errno]) => [errno, name]),
)
