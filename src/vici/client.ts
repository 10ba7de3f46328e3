/** A conversation with charon over its vici socket: one request after the other, each answered before the next is sent. */

import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ViciSection } from './message.ts'
import { decodePacket, encodeRequest, PacketReader, type ViciPacket, type ViciRequest } from './packet.ts'

/** Where charon listens unless it is told otherwise. */
export const VICI_SOCKET = '/var/run/charon.vici'

/** For a request and its answer. Milliseconds. */
const TIMEOUT = 10_000

/** charon refused a request, or does not answer. */
export class CharonError extends Error {
  override readonly name = 'CharonError'
}

export class ViciClient {
  readonly #socket: Socket
  readonly #reader = new PacketReader()
  /** Resolves when the conversation is over, by whichever end. */
  readonly closed: Promise<void>
  #isClosed = false
  /** The last request, answered or not: requests wait for each other. */
  #last: Promise<unknown> = Promise.resolve()
  #take: ((packet: ViciPacket | CharonError) => void) | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isClosed = true
        this.#take?.(new CharonError('charon ended the conversation'))
        resolve()
      })
    })
    socket.on('error', () => undefined) // `close` follows
    socket.on('data', (piece) => this.#read(piece))
  }

  /** @throws {CharonError} when nobody listens there. */
  static connect(path: string = VICI_SOCKET): Promise<ViciClient> {
    const socket = connect(path)
    return new Promise((resolve, reject) => {
      socket.once('connect', () => resolve(new ViciClient(socket)))
      socket.once('error', ({ message }) => reject(new CharonError(`charon does not listen: ${message}`)))
    })
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** Gives charon's answer. @throws {CharonError} also when charon says that it failed. */
  request(command: string, message: ViciSection = {}): Promise<ViciSection> {
    return this.#inTurn(() => this.#command(command, message, () => undefined))
  }

  /** The events of that name which a command sends before its answer. @throws {CharonError} */
  list(command: string, event: string): Promise<ViciSection[]> {
    return this.#inTurn(async () => {
      const events: ViciSection[] = []
      await this.#exchange('register', event, {}, () => undefined)
      await this.#command(command, {}, (packet) => {
        if (packet.type === 'event' && packet.name === event) events.push(packet.message)
      })
      await this.#exchange('unregister', event, {}, () => undefined)
      return events
    })
  }

  close(): void {
    this.#socket.destroy()
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#last
    const turn = Promise.withResolvers<void>()
    this.#last = turn.promise
    await before
    try {
      return await work()
    } finally {
      turn.resolve()
    }
  }

  async #command(
    command: string,
    message: ViciSection,
    onEvent: (packet: ViciPacket) => void,
  ): Promise<ViciSection> {
    const answer = await this.#exchange('request', command, message, onEvent)
    if (answer.type !== 'response') throw new CharonError(`charon does not know ${command}`)
    const { success = 'yes', errmsg } = answer.message
    if (success !== 'yes') {
      const why = typeof errmsg === 'string' ? errmsg : 'no reason given'
      throw new CharonError(`charon refused ${command}: ${why}`)
    }
    return answer.message
  }

  /** Sends, and gives the first packet that is no event. After a timeout the conversation is over. */
  async #exchange(
    type: ViciRequest,
    name: string,
    message: ViciSection,
    onEvent: (packet: ViciPacket) => void,
  ): Promise<ViciPacket> {
    if (this.#isClosed) throw new CharonError('charon ended the conversation')
    const answer = Promise.withResolvers<ViciPacket | CharonError>()
    this.#take = (packet) => {
      if (packet instanceof CharonError || packet.type !== 'event') answer.resolve(packet)
      else onEvent(packet)
    }
    const stop = new AbortController()
    const late = sleep(TIMEOUT, new CharonError(`charon did not answer ${name}`), { signal: stop.signal })
    late.catch(() => undefined)
    try {
      this.#socket.write(encodeRequest(type, name, message))
      const result = await Promise.race([answer.promise, late])
      if (!(result instanceof CharonError)) return result
      this.close()
      throw result
    } finally {
      stop.abort()
      this.#take = undefined
    }
  }

  /** What cannot be read ends the conversation: what follows it cannot be read either. */
  #read(piece: Buffer): void {
    try {
      for (const body of this.#reader.push(piece)) this.#take?.(decodePacket(body))
    } catch (error) {
      this.#take?.(new CharonError(error instanceof Error ? error.message : String(error)))
      this.close()
    }
  }
}
