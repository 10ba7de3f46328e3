/**
 * The messages of strongSwan's vici protocol: keys with values, lists and sections, each length-prefixed.
 * Source: src/libcharon/plugins/vici/README.md of strongSwan.
 */

/** A section's values are strings, lists of strings, or sections. Their order is kept. */
export interface ViciSection {
  readonly [name: string]: string | readonly string[] | ViciSection
}

/** Bytes that are no vici message, or a value that cannot be put into one. */
export class ViciError extends Error {
  override readonly name = 'ViciError'
}

/** As they stand before each element. */
const SECTION_START = 1
const SECTION_END = 2
const KEY_VALUE = 3
const LIST_START = 4
const LIST_ITEM = 5
const LIST_END = 6

/** A name has one byte for its length, a value two. */
const MAX_NAME = 0xff
const MAX_VALUE = 0xffff

/** Nothing that charon sends is deeper than a few sections. */
const MAX_DEPTH = 32

/** @throws {ViciError} for a name or value that is too long. */
export function encodeMessage(section: ViciSection): Buffer {
  const parts: Buffer[] = []
  writeSection(section, parts)
  return Buffer.concat(parts)
}

/** @throws {ViciError} */
export function decodeMessage(bytes: Buffer): ViciSection {
  return readSection(new Reader(bytes), 0)
}

/** Its length in one byte, and the name. @throws {ViciError} */
export function encodeName(name: string): Buffer {
  const text = Buffer.from(name, 'utf8')
  if (text.length > MAX_NAME)
    throw new ViciError(`the name ${name.slice(0, 40)}… is longer than ${MAX_NAME} bytes`)
  return Buffer.concat([Buffer.of(text.length), text])
}

function writeSection(section: ViciSection, parts: Buffer[]): void {
  for (const [name, value] of Object.entries(section)) {
    if (typeof value === 'string') {
      parts.push(Buffer.of(KEY_VALUE), encodeName(name), encodeValue(name, value))
    } else if (isList(value)) {
      parts.push(Buffer.of(LIST_START), encodeName(name))
      for (const item of value) parts.push(Buffer.of(LIST_ITEM), encodeValue(name, item))
      parts.push(Buffer.of(LIST_END))
    } else {
      parts.push(Buffer.of(SECTION_START), encodeName(name))
      writeSection(value, parts)
      parts.push(Buffer.of(SECTION_END))
    }
  }
}

function encodeValue(name: string, value: string): Buffer {
  const text = Buffer.from(value, 'utf8')
  if (text.length > MAX_VALUE) throw new ViciError(`${name} is longer than ${MAX_VALUE} bytes`)
  const length = Buffer.alloc(2)
  length.writeUInt16BE(text.length)
  return Buffer.concat([length, text])
}

function isList(value: readonly string[] | ViciSection): value is readonly string[] {
  return Array.isArray(value)
}

/** Up to the end of the section; at depth 0, of the message. */
function readSection(reader: Reader, depth: number): ViciSection {
  if (depth > MAX_DEPTH) throw reader.error(`more than ${MAX_DEPTH} sections in each other`)
  const entries: [string, ViciSection[string]][] = []
  while (depth > 0 || !reader.atEnd) {
    const type = reader.byte()
    if (type === SECTION_END && depth > 0) break
    const name = type === SECTION_START || type === KEY_VALUE || type === LIST_START ? reader.name() : ''
    if (type === SECTION_START) entries.push([name, readSection(reader, depth + 1)])
    else if (type === KEY_VALUE) entries.push([name, reader.value()])
    else if (type === LIST_START) entries.push([name, readList(reader)])
    else throw reader.error(`element type ${type}`)
  }
  return Object.fromEntries(entries)
}

function readList(reader: Reader): string[] {
  const items: string[] = []
  for (;;) {
    const type = reader.byte()
    if (type === LIST_END) return items
    if (type !== LIST_ITEM) throw reader.error(`element type ${type} in a list`)
    items.push(reader.value())
  }
}

/** Reads from left to right, and never past the end. */
class Reader {
  readonly #bytes: Buffer
  #offset = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get atEnd(): boolean {
    return this.#offset === this.#bytes.length
  }

  byte(): number {
    return this.#take(1)[0] ?? 0
  }

  name(): string {
    return this.#take(this.byte()).toString('utf8')
  }

  value(): string {
    return this.#take(this.#take(2).readUInt16BE()).toString('utf8')
  }

  error(what: string): ViciError {
    return new ViciError(`${what} at byte ${this.#offset} of a vici message of ${this.#bytes.length}`)
  }

  #take(length: number): Buffer {
    const end = this.#offset + length
    if (end > this.#bytes.length) throw this.error(`${length} bytes are missing`)
    const taken = this.#bytes.subarray(this.#offset, end)
    this.#offset = end
    return taken
  }
}
