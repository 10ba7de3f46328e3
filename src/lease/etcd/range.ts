/**
 * The answer to a range, taken out of its bytes by hand: with tens of thousands of leases it is the largest message by
 * far, and the generated decoder makes five 64-bit numbers and two buffers of each key. Field numbers are those of
 * `RangeResponse`, `ResponseHeader` and `KeyValue` in rpc.proto; what is not needed is skipped, as protobuf asks.
 */

/** A key and its value as text; what is not UTF-8 is nobody's lease. */
export interface Stored {
  readonly key: string
  readonly value: string
  /** Revisions of the store. A number is enough for 2^53 of them. */
  readonly created: number
  readonly modified: number
  /** The etcd lease that takes the key with it; 0: none. */
  readonly lease: bigint
  /** When this revision of the key was first seen, in milliseconds since the epoch. */
  readonly seen: number
}

/** Where the parts of an answer are. */
export interface Page {
  readonly bytes: Buffer
  readonly cluster: bigint
  readonly revision: number
  /** Whether there are more keys than the limit let through. */
  readonly more: boolean
  /** Of each key-value pair: where it begins and ends in the bytes. */
  readonly pairs: readonly number[]
  /** The last key, as it is. */
  readonly last: Buffer
}

/** Bytes that are not a message of etcd's. */
export class WireError extends Error {
  override readonly name = 'WireError'
}

const VARINT = 0
const LENGTH_DELIMITED = 2

/** The two halves of a number of 64 bits: arithmetic on bigints is slow, and makes one with each step. */
const HALVES = new Uint32Array(2)
const WHOLE = new BigInt64Array(HALVES.buffer)
const [LOW, HIGH] = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? [0, 1] : [1, 0]

/** A cursor over protobuf's wire format. */
class Wire {
  readonly bytes: Buffer
  at = 0
  end = 0
  field = 0
  type = 0

  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.bytes = bytes
    this.begin(at, end)
  }

  /** Another part of the same bytes. */
  begin(at: number, end: number): void {
    this.at = at
    this.end = end
  }

  /** Reads the next tag; false at the end. */
  next(): boolean {
    if (this.at >= this.end) return false
    const tag = this.number()
    this.field = tag >>> 3
    this.type = tag & 7
    return true
  }

  /** A varint of up to 53 bits. */
  number(): number {
    let value = 0
    for (let factor = 1; this.at < this.end; factor *= 128) {
      const byte = this.bytes[this.at++] ?? 0
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
    }
    throw new WireError(`a number without an end at byte ${this.at}`)
  }

  /** A varint of up to 64 bits; negative ones of int64 too. */
  bigint(): bigint {
    let low = 0
    let high = 0
    for (let bits = 0; this.at < this.end && bits < 70; bits += 7) {
      const byte = this.bytes[this.at++] ?? 0
      const part = byte & 0x7f
      if (bits < 32) low |= part << bits
      // What the lower half has no room for; of the last byte, the one bit that there is room for.
      if (bits >= 32) high |= part << (bits - 32)
      else if (bits > 25) high |= part >>> (32 - bits)
      if (byte < 0x80) {
        HALVES[LOW] = low
        HALVES[HIGH] = high
        return WHOLE[0] ?? 0n
      }
    }
    throw new WireError(`a number without an end at byte ${this.at}`)
  }

  /** Where the value that has a length ends; the cursor is at its start. */
  endOfValue(): number {
    const length = this.number()
    const end = this.at + length
    if (end > this.end) throw new WireError(`${length} bytes at byte ${this.at}, which has fewer`)
    return end
  }

  text(): string {
    const end = this.endOfValue()
    const text = this.bytes.toString('utf8', this.at, end)
    this.at = end
    return text
  }

  skip(): void {
    if (this.type === VARINT) this.number()
    else if (this.type === LENGTH_DELIMITED) this.at = this.endOfValue()
    else throw new WireError(`wire type ${this.type} at byte ${this.at}`)
  }
}

/** Finds the parts, and decodes none: the next page can be asked for before this one is worked on. @throws {WireError} */
export function splitPage(bytes: Buffer): Page {
  const wire = new Wire(bytes)
  const pairs: number[] = []
  let header = { cluster: 0n, revision: 0 }
  let more = false
  while (wire.next()) {
    if (wire.field === 1 && wire.type === LENGTH_DELIMITED) header = readHeader(wire, wire.endOfValue())
    else if (wire.field === 2 && wire.type === LENGTH_DELIMITED) {
      const end = wire.endOfValue()
      pairs.push(wire.at, end)
      wire.at = end
    } else if (wire.field === 3 && wire.type === VARINT) more = wire.number() !== 0
    else wire.skip()
  }
  return { bytes, ...header, more, pairs, last: keyOf(bytes, pairs) }
}

/** @param seen Milliseconds since the epoch. @throws {WireError} */
export function* readPairs({ bytes, pairs }: Page, seen: number): Generator<Stored> {
  const wire = new Wire(bytes)
  for (let i = 0; i < pairs.length; i += 2) {
    wire.begin(pairs[i] ?? 0, pairs[i + 1] ?? 0)
    yield readPair(wire, seen)
  }
}

function readHeader(wire: Wire, end: number): { cluster: bigint; revision: number } {
  const header = new Wire(wire.bytes, wire.at, end)
  let cluster = 0n
  let revision = 0
  while (header.next()) {
    if (header.field === 1 && header.type === VARINT) cluster = BigInt.asUintN(64, header.bigint())
    else if (header.field === 3 && header.type === VARINT) revision = header.number()
    else header.skip()
  }
  wire.at = end
  return { cluster, revision }
}

function readPair(wire: Wire, seen: number): Stored {
  let key = ''
  let value = ''
  let created = 0
  let modified = 0
  let lease = 0n
  while (wire.next()) {
    if (wire.field === 1 && wire.type === LENGTH_DELIMITED) key = wire.text()
    else if (wire.field === 2 && wire.type === VARINT) created = wire.number()
    else if (wire.field === 3 && wire.type === VARINT) modified = wire.number()
    else if (wire.field === 5 && wire.type === LENGTH_DELIMITED) value = wire.text()
    else if (wire.field === 6 && wire.type === VARINT) lease = wire.bigint()
    else wire.skip()
  }
  return { key, value, created, modified, lease, seen }
}

function keyOf(bytes: Buffer, pairs: readonly number[]): Buffer {
  const wire = new Wire(bytes, pairs.at(-2) ?? 0, pairs.at(-1) ?? 0)
  while (wire.next()) {
    if (wire.field !== 1 || wire.type !== LENGTH_DELIMITED) {
      wire.skip()
      continue
    }
    const end = wire.endOfValue()
    return bytes.subarray(wire.at, end)
  }
  return Buffer.alloc(0)
}
