/** The packets that carry vici messages: a length of four bytes, a type, and for some types a name. */

import { decodeMessage, encodeMessage, encodeName, ViciError, type ViciSection } from './message.ts'

/** What a client sends. */
const REQUESTS = { request: 0, register: 3, unregister: 4 } as const

export type ViciRequest = keyof typeof REQUESTS

/** What charon sends; `unknown` is its answer to a command or event that it does not have. */
export type ViciPacket =
  | { readonly type: 'response'; readonly message: ViciSection }
  | { readonly type: 'confirmed' | 'unknown' }
  | { readonly type: 'event'; readonly name: string; readonly message: ViciSection }

const RESPONSE = 1
const UNKNOWN_COMMAND = 2
const CONFIRMED = 5
const UNKNOWN_EVENT = 6
const EVENT = 7

/** charon's own limit. Bytes. */
export const MAX_PACKET = 512 * 1024
/** Of the length. Bytes. */
const HEADER = 4

/** @param name Of the command, or of the event. @throws {ViciError} for what is too long. */
export function encodeRequest(type: ViciRequest, name: string, message: ViciSection = {}): Buffer {
  const body = Buffer.concat([Buffer.of(REQUESTS[type]), encodeName(name), encodeMessage(message)])
  if (body.length > MAX_PACKET)
    throw new ViciError(`${name} has ${body.length} bytes; allowed are ${MAX_PACKET}`)
  const header = Buffer.alloc(HEADER)
  header.writeUInt32BE(body.length)
  return Buffer.concat([header, body])
}

/** Without its length. @throws {ViciError} */
export function decodePacket(body: Buffer): ViciPacket {
  const type = body[0] ?? -1
  switch (type) {
    case RESPONSE:
      return { type: 'response', message: decodeMessage(body.subarray(1)) }
    case UNKNOWN_COMMAND:
    case UNKNOWN_EVENT:
      return { type: 'unknown' }
    case CONFIRMED:
      return { type: 'confirmed' }
    case EVENT: {
      const end = 2 + (body[1] ?? 0)
      if (body.length < end) throw new ViciError('a vici event ends in the middle of its name')
      const name = body.subarray(2, end).toString('utf8')
      return { type: 'event', name, message: decodeMessage(body.subarray(end)) }
    }
    default:
      throw new ViciError(`a vici packet has the type ${type}`)
  }
}

/** Cuts a stream into packets, in whatever pieces it comes. */
export class PacketReader {
  #rest: Buffer = Buffer.alloc(0)

  /** The bodies of the packets that are whole with this piece. @throws {ViciError} for one that is too long. */
  push(piece: Buffer): Buffer[] {
    this.#rest = this.#rest.length === 0 ? piece : Buffer.concat([this.#rest, piece])
    const bodies: Buffer[] = []
    while (this.#rest.length >= HEADER) {
      const length = this.#rest.readUInt32BE()
      if (length > MAX_PACKET)
        throw new ViciError(`a vici packet of ${length} bytes; allowed are ${MAX_PACKET}`)
      if (this.#rest.length < HEADER + length) break
      bodies.push(this.#rest.subarray(HEADER, HEADER + length))
      this.#rest = this.#rest.subarray(HEADER + length)
    }
    return bodies
  }
}
