/**
 * Bytes of netlink messages: fixed structs and attributes (type-length-value, linux/netlink.h `struct nlattr`).
 *
 * Integers are in host order except where the name says big endian. An attribute is a header of 4 bytes (u16
 * length with the header, u16 type), the value, and padding to a multiple of 4 that the length does not count.
 */

import { formatIp, formatIpv4, type Ip, ipBytes, ipv4Bits } from '../address/ip.ts'
import { formatMac, type Mac, writeMac } from '../address/mac.ts'

/** In a type: the value is attributes. rtnetlink does without it, most generic families ask for it. */
export const NLA_F_NESTED = 0x8000
/** The type without its flags NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const NLA_TYPE_MASK = 0x3fff

const HEADER = 4
/** The length of an attribute is a u16. */
const MAX_LENGTH = 0xffff
/** Of the machine, hence of the kernel. */
export const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1
const UTF8 = new TextDecoder()

/** Bytes that are not what they should be. */
export class DecodeError extends Error {
  override readonly name = 'DecodeError'
  /** Where, in bytes from the start of the payload (of the datagram, for a message header). */
  readonly offset: number
  readonly what: string

  constructor(offset: number, what: string) {
    super(`${what}, at byte ${offset}`)
    this.offset = offset
    this.what = what
  }
}

/** An attribute that its reader does not know; `type` still has the NLA_F_ flags, so that it survives a round trip. */
export interface Attribute {
  readonly type: number
  readonly value: Uint8Array
}

/**
 * A window on bytes: first the fixed struct at their head, then, with each `next()`, the value of one attribute
 * after the other. Getters take offsets from the start of the window and throw a DecodeError rather than read
 * beyond its end. One reader serves a whole object, so that a dump makes no object for each attribute.
 */
export class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #base: number
  #start = 0
  #end: number
  #next: number
  #rawType = 0

  /** @param base Where `bytes` begin in the payload, for the offset of a DecodeError. */
  constructor(bytes: Uint8Array, structSize: number, base = 0) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#base = base
    this.#end = bytes.length
    this.#check(0, structSize)
    this.#end = structSize
    this.#next = align(structSize)
  }

  /** Moves to the next attribute; false after the last one. */
  next(): boolean {
    const { length } = this.#bytes
    const start = this.#next
    if (start >= length) return false
    this.#start = start
    this.#end = length
    const size = this.u16(0)
    this.#rawType = this.u16(2)
    if (size < HEADER) throw new DecodeError(this.#base + start, `an attribute of length ${size}`)
    this.#check(0, size)
    this.#start = start + HEADER
    this.#end = start + size
    this.#next = start + align(size)
    return true
  }

  /** The type of the attribute, without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
  get type(): number {
    return this.#rawType & NLA_TYPE_MASK
  }

  /** The length of the window. */
  get length(): number {
    return this.#end - this.#start
  }

  u8(at = 0): number {
    return this.#view.getUint8(this.#check(at, 1))
  }

  u16(at = 0): number {
    return this.#view.getUint16(this.#check(at, 2), LITTLE_ENDIAN)
  }

  u16BigEndian(at = 0): number {
    return this.#view.getUint16(this.#check(at, 2))
  }

  u32(at = 0): number {
    return this.#view.getUint32(this.#check(at, 4), LITTLE_ENDIAN)
  }

  i32(at = 0): number {
    return this.#view.getInt32(this.#check(at, 4), LITTLE_ENDIAN)
  }

  u64(at = 0): bigint {
    return this.#view.getBigUint64(this.#check(at, 8), LITTLE_ENDIAN)
  }

  i64(at = 0): bigint {
    return this.#view.getBigInt64(this.#check(at, 8), LITTLE_ENDIAN)
  }

  /** The kernel's boolean of one byte. */
  boolean(): boolean {
    return this.u8() !== 0
  }

  /** UTF-8 text up to the first NUL. */
  text(): string {
    const value = this.#bytes.subarray(this.#start, this.#end)
    const nul = value.indexOf(0)
    return UTF8.decode(nul < 0 ? value : value.subarray(0, nul))
  }

  /** The window as 4 or 16 bytes in network order. */
  ip(): Ip {
    if (this.length === 4) return formatIpv4(this.#view.getUint32(this.#check(0, 4)))
    if (this.length !== 16) throw this.error('an IP address')
    return formatIp(this.#bytes.subarray(this.#start, this.#end))
  }

  /** Of the window, valid as long as the datagram. */
  bytes(at: number, size: number): Uint8Array {
    const position = this.#check(at, size)
    return this.#bytes.subarray(position, position + size)
  }

  mac(): Mac {
    if (this.length !== 6) throw this.error('a MAC address')
    return formatMac(this.#bytes.subarray(this.#start, this.#end))
  }

  /** A reader of the attributes inside this one, behind a struct of that size. */
  nested(structSize = 0): Reader {
    return new Reader(this.#bytes.subarray(this.#start, this.#end), structSize, this.#base + this.#start)
  }

  /** The attribute as it is, to be kept: a copy, for the bytes of a datagram do not outlive its decoding. */
  attribute(): Attribute {
    return { type: this.#rawType, value: this.#bytes.slice(this.#start, this.#end) }
  }

  #check(at: number, size: number): number {
    const position = this.#start + at
    if (position + size > this.#end) throw this.error(`${size} bytes at ${at}`)
    return position
  }

  /** The window is not what it should be. */
  error(wanted: string): DecodeError {
    return new DecodeError(this.#base + this.#start, `${this.length} bytes where ${wanted} should be`)
  }
}

/**
 * Makes payloads: `start()` with the size of the fixed struct, fill it, put attributes, `finish()`. Payloads are
 * views into chunks that are never written again, so that thousands of messages cost few allocations.
 *
 * A `put` of undefined puts nothing: absent is not zero.
 */
export class Writer {
  readonly #chunkSize: number
  #bytes = new Uint8Array(0)
  #view = new DataView(this.#bytes.buffer)
  #start = 0
  #end = 0

  constructor(chunkSize = 256) {
    this.#chunkSize = chunkSize
  }

  /** Begins a payload with a struct of zeros. */
  start(structSize: number): this {
    // Also after an encoder threw half-way: what it left behind is not zeros any more, and is skipped.
    this.#start = this.#end
    this.#reserve(structSize)
    return this
  }

  /** The payload since `start()`. */
  finish(): Uint8Array {
    const payload = this.#bytes.subarray(this.#start, this.#end)
    this.#start = this.#end
    return payload
  }

  /** Sets a field of the payload, at its offset: offsets hold when the chunk is exchanged, positions do not. */
  u8(at: number, value: number): void {
    this.#view.setUint8(this.#start + at, value)
  }

  u16(at: number, value: number): void {
    this.#view.setUint16(this.#start + at, value, LITTLE_ENDIAN)
  }

  u16BigEndian(at: number, value: number): void {
    this.#view.setUint16(this.#start + at, value)
  }

  u32BigEndian(at: number, value: number): void {
    this.#view.setUint32(this.#start + at, value)
  }

  u32(at: number, value: number): void {
    this.#view.setUint32(this.#start + at, value, LITTLE_ENDIAN)
  }

  u64(at: number, value: bigint): void {
    this.#view.setBigUint64(this.#start + at, value, LITTLE_ENDIAN)
  }

  /** Bytes that are in the payload already are overwritten. */
  bytes(at: number, value: Uint8Array): void {
    this.#bytes.set(value, this.#start + at)
  }

  /** An attribute of `size` zeros. Returns its offset, for the setters. */
  put(type: number, size: number): number {
    const length = HEADER + size
    if (length > MAX_LENGTH) throw new RangeError(`attribute ${type} would have ${length} bytes`)
    const header = this.#reserve(length)
    this.u16(header, length)
    this.u16(header + 2, type)
    return header + HEADER
  }

  putU8(type: number, value: number | undefined): void {
    if (value !== undefined) this.u8(this.put(type, 1), value)
  }

  putU16(type: number, value: number | undefined): void {
    if (value !== undefined) this.u16(this.put(type, 2), value)
  }

  putU16BigEndian(type: number, value: number | undefined): void {
    if (value !== undefined) this.u16BigEndian(this.put(type, 2), value)
  }

  putU32(type: number, value: number | undefined): void {
    if (value !== undefined) this.u32(this.put(type, 4), value)
  }

  putU64(type: number, value: bigint | undefined): void {
    if (value !== undefined) this.u64(this.put(type, 8), value)
  }

  /** The kernel's boolean of one byte: 0 is said, undefined is not. */
  putBoolean(type: number, value: boolean | undefined): void {
    if (value !== undefined) this.putU8(type, value ? 1 : 0)
  }

  /** An attribute without a value: there or not. */
  putFlag(type: number, value: boolean | undefined): void {
    if (value === true) this.put(type, 0)
  }

  putBytes(type: number, value: Uint8Array | undefined): void {
    if (value === undefined) return
    // Before #bytes is read: it may exchange the chunk.
    const at = this.put(type, value.length)
    this.bytes(at, value)
  }

  /** UTF-8 with a NUL at its end. */
  putText(type: number, value: string | undefined): void {
    if (value !== undefined) this.putBytes(type, Buffer.from(`${value}\0`))
  }

  putIp(type: number, value: Ip | undefined): void {
    if (value === undefined) return
    const bits = ipv4Bits(value)
    if (bits === undefined) this.putBytes(type, ipBytes(value))
    else this.u32BigEndian(this.put(type, 4), bits)
  }

  putMac(type: number, value: Mac | undefined): void {
    if (value === undefined) return
    // Before #bytes is read: it may exchange the chunk.
    const at = this.put(type, 6)
    writeMac(value, this.#bytes, this.#start + at)
  }

  putAll(attributes: readonly Attribute[] | undefined): void {
    if (attributes === undefined) return
    for (const { type, value } of attributes) this.putBytes(type, value)
  }

  /**
   * An attribute whose value is a struct of `structSize` zeros and the attributes that `body` puts; `body` is given
   * the offset of the struct. Like the kernel's answers and `ip`'s requests, without NLA_F_NESTED: what is older
   * than Linux 5.2 does not ask for the flag.
   */
  nest(type: number, body: (at: number) => void, structSize = 0): void {
    const at = this.put(type, structSize)
    body(at)
    const length = this.#end - this.#start - at + HEADER
    if (length > MAX_LENGTH) throw new RangeError(`attribute ${type} would have ${length} bytes`)
    this.u16(at - HEADER, length)
  }

  /** Makes room at the end, in whole words of 4 bytes. Returns its offset. */
  #reserve(size: number): number {
    const needed = align(size)
    if (this.#end + needed > this.#bytes.length) {
      const begun = this.#bytes.subarray(this.#start, this.#end)
      this.#bytes = new Uint8Array(Math.max(this.#chunkSize, 2 * (begun.length + needed)))
      this.#view = new DataView(this.#bytes.buffer)
      this.#bytes.set(begun)
      this.#start = 0
      this.#end = begun.length
    }
    const offset = this.#end - this.#start
    this.#end += needed
    return offset
  }
}

/**
 * Where payloads come from unless a caller brings its own writer. As with Buffer's pool, nothing carries over from
 * one payload to the next; one that is kept keeps its chunk.
 */
export const POOL = new Writer(64 * 1024)

/** An object under construction. */
export type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** NLMSG_ALIGN, NLA_ALIGN: structs and attributes begin at multiples of 4. */
export function align(size: number): number {
  return size + (-size & 3)
}
