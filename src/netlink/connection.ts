/**
 * Conversations over netlink sockets: the only file of this folder that touches the operating system.
 *
 * The kernel carries out a request inside the sendto() that brings it, so its answer is queued when sendto() returns:
 * every receive is synchronous, and its timeout only guards against an answer that never comes.
 */

import { setImmediate as nextTurn } from 'node:timers/promises'
import { openNetlink, type Socket } from '../native.ts'
import { align } from './attribute.ts'
import {
  Datagram,
  decodeAck,
  encodeMessage,
  type Message,
  type NetlinkError,
  NLM_F_ACK,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  type Request,
  splitMessages,
} from './message.ts'

/** The kernel makes the parts of a dump as large as the slots, up to 32 KiB. */
const DUMP_SLOT = 32 * 1024
const NOTIFICATION_SLOT = 16 * 1024
/** Filled and copied within one synchronous call, hence one for all sockets: what one turn of the loop takes. */
const SLOTS = new Uint8Array(8 * DUMP_SLOT)
const LENGTHS = new Uint32Array(64)

/** Milliseconds. */
const ANSWER_TIMEOUT = 1000

/** Of one datagram. The kernel takes the RTNL lock for each message by itself. */
const BATCH_MESSAGES = 1000
const BATCH_BYTES = 80 * 1024
/** From so many messages on, a thread waits for the kernel: they take it longer (1 ms) than to go there and back (0.5 ms). */
const MANY_MESSAGES = 200
/** An error takes about 1 KiB of it: room for one from every message of a datagram. */
const ANSWER_BUFFER = 2 * 1024 * 1024

/** The state changed while it was dumped: what came may be inconsistent. Dump again. */
export class DumpInterrupted extends Error {
  override readonly name = 'DumpInterrupted'
}

/** The answer did not come, or not whole: whether the request was carried out is unknown. */
export class AnswerLost extends Error {
  override readonly name = 'AnswerLost'
}

export interface ConnectionOptions {
  /** Path of a namespace, `/run/netns/x`; undefined for the process's own. */
  readonly netns?: string | undefined
  /** NETLINK_ROUTE, the default, or NETLINK_GENERIC. */
  readonly protocol?: number | undefined
}

/** Requests and their answers. Calls may overlap: they are carried out one after the other. */
export class Connection implements Disposable {
  readonly #socket: Socket
  #sequence = 1
  #last: Promise<unknown> = Promise.resolve()

  private constructor(socket: Socket) {
    this.#socket = socket
  }

  static open({ netns, protocol }: ConnectionOptions = {}): Connection {
    return new Connection(openNetlink({ netns, protocol, receiveBuffer: ANSWER_BUFFER }))
  }

  /** @throws {NetlinkError} when the kernel refuses. */
  async request(request: Request): Promise<void> {
    for (const error of (await this.batch([request])).values()) throw error
  }

  /** The one object that a GET request asks for. @throws {NetlinkError} */
  async get(request: Request): Promise<Message> {
    const found: Message[] = []
    await this.#alone(() =>
      this.#read({ ...request, flags: request.flags | NLM_F_ACK }, (m) => found.push(m)),
    )
    const [message] = found
    if (message === undefined) throw new AnswerLost('the kernel acknowledged a GET request without an answer')
    return message
  }

  /**
   * Calls `visit` for each object that a request with NLM_F_DUMP asks for. Gives way to the event loop in between.
   * @throws {NetlinkError} {@link DumpInterrupted}, at the end of the dump; whatever `visit` throws.
   */
  dump(request: Request, visit: (message: Message) => void): Promise<void> {
    return this.#alone(() => this.#read(request, visit))
  }

  /**
   * Many requests in few datagrams; a failed one stops no other. Gives the errors, each by the number of its request.
   * Gives way to other calls between datagrams. While the kernel works on a large one, the next requests are asked for:
   * they may be made as they are taken.
   */
  async batch(requests: Iterable<Request>): Promise<ReadonlyMap<number, NetlinkError>> {
    const errors = new Map<number, NetlinkError>()
    let last: Promise<void> | undefined
    let sent = 0
    const send = async (full: Datagram): Promise<void> => {
      await last
      const first = sent
      sent += full.count
      const sequence = this.#take(full.count)
      const bytes = full.finish(sequence, NLM_F_ACK)
      const begun = Promise.withResolvers<void>()
      last = this.#alone(async () => {
        const delivered = full.count < MANY_MESSAGES ? this.#socket.send(bytes) : this.#socket.deliver(bytes)
        begun.resolve()
        await delivered
        this.#collect(full, sequence, (i, error) => errors.set(first + i, error))
      })
      await Promise.race([begun.promise, last])
    }
    /** One is filled while the kernel has the other. */
    let datagram = new Datagram()
    let other: Datagram | undefined
    for (const request of requests) {
      if (isFull(datagram, request)) {
        await send(datagram)
        ;[datagram, other] = [other ?? new Datagram(), datagram]
        datagram.clear()
      }
      datagram.add(request)
    }
    if (datagram.count > 0) await send(datagram)
    await last
    return errors
  }

  close(): void {
    this.#socket.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /** Runs after all work that was given before, because the answers of two dumps on one socket would mix. */
  #alone<T>(work: () => T | Promise<T>): Promise<T> {
    const result = this.#last.then(work)
    this.#last = result.catch(() => undefined)
    return result
  }

  /** Errors come unasked; the acknowledgement of the last message says that no more of them will come. */
  #collect(datagram: Datagram, sequence: number, failed: (i: number, error: NetlinkError) => void): void {
    const last = datagram.count - 1
    for (;;) {
      for (const message of this.#answers()) {
        const index = (message.sequence - sequence) >>> 0
        if (message.type !== NLMSG_ERROR || index > last) continue
        const error = decodeAck(message, datagram.operation(index))
        if (error !== undefined) failed(index, error)
        if (index === last) return
      }
    }
  }

  /** To the end even when `visit` throws: a socket takes no second dump while one is unfinished. */
  async #read(request: Request, visit: (message: Message) => void): Promise<void> {
    const sequence = this.#take(1)
    this.#socket.send(encodeMessage(request, sequence))
    let failure: { readonly error: unknown } | undefined
    for (;;) {
      for (const message of this.#answers()) {
        if (message.sequence !== sequence) continue
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) {
          failure ??= { error: new DumpInterrupted('the kernel state changed while it was dumped') }
        }
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          const error = decodeAck(message, request.operation)
          if (error !== undefined) throw error
          if (failure !== undefined) throw failure.error
          return
        }
        try {
          if (failure === undefined) visit(message)
        } catch (error) {
          failure = { error }
        }
      }
      await nextTurn()
    }
  }

  #answers(): readonly Message[] {
    const received = receive(this.#socket, DUMP_SLOT, ANSWER_TIMEOUT)
    if (received === 'overrun') throw new AnswerLost('the receive buffer overran: answers are lost')
    if (received.datagrams === 0)
      throw new AnswerLost(`the kernel did not answer within ${ANSWER_TIMEOUT} ms`)
    return received.messages
  }

  #take(count: number): number {
    const sequence = this.#sequence
    this.#sequence = (sequence + count) >>> 0
    return sequence
  }
}

export type SubscriptionEvent =
  | { readonly kind: 'messages'; readonly messages: readonly Message[] }
  /** Notifications were lost: only a dump, begun after this, tells the state. Later notifications arrive again. */
  | { readonly kind: 'overrun' }

export interface SubscriptionOptions extends ConnectionOptions {
  /** RTNLGRP_*, or the numbers of a generic family's groups. */
  readonly groups: readonly number[]
  /** Bytes. A notification takes about 1 KiB of it, whatever its size. */
  readonly receiveBuffer?: number
  /** Closes the subscription. */
  readonly signal?: AbortSignal
}

/** The notifications of multicast groups, from the moment of opening. */
export class Subscription implements AsyncIterable<SubscriptionEvent>, Disposable {
  readonly #socket: Socket
  readonly #signal: AbortSignal | undefined
  readonly #close = (): void => this.close()
  #closed = false
  /** Whether the last answer was as large as it can be: then there may be more to receive. */
  #more = false

  private constructor(socket: Socket, signal: AbortSignal | undefined) {
    this.#socket = socket
    this.#signal = signal
    signal?.addEventListener('abort', this.#close)
    if (signal?.aborted === true) this.close()
  }

  static open({ signal, ...options }: SubscriptionOptions): Subscription {
    return new Subscription(openNetlink(options), signal)
  }

  /**
   * All that is queued now. The kernel queues the notifications of a change before it answers the request for it,
   * so after a request this includes them.
   */
  drain(): SubscriptionEvent[] {
    const events: SubscriptionEvent[] = []
    for (;;) {
      const event = this.#next()
      if (event !== undefined) events.push(event)
      if (event === undefined || !this.#more) return events
    }
  }

  /** True when there is something to drain; false when the subscription is closed first. One wait at a time. */
  async readable(): Promise<boolean> {
    return !this.#closed && (await this.#socket.readable())
  }

  /**
   * Ends when the subscription is closed. Takes an event out of the socket only to hand it over, so that it may be
   * mixed with `drain` and the order holds; and one in each turn of the event loop, so that a flood starves nobody.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<SubscriptionEvent, void> {
    while (await this.readable()) {
      const event = this.#next()
      if (event !== undefined) yield event
    }
  }

  close(): void {
    this.#closed = true
    this.#signal?.removeEventListener('abort', this.#close)
    this.#socket.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #next(): SubscriptionEvent | undefined {
    const received = receive(this.#socket, NOTIFICATION_SLOT, 0)
    this.#more = received === 'overrun' || received.datagrams === SLOTS.length / NOTIFICATION_SLOT
    if (received === 'overrun') return { kind: 'overrun' }
    return received.datagrams === 0 ? undefined : { kind: 'messages', messages: received.messages }
  }
}

/** Whether the request is to go with the next datagram. */
function isFull({ count, length }: Datagram, { payload }: Request): boolean {
  return count === BATCH_MESSAGES || (count > 0 && length + payload.length > BATCH_BYTES)
}

interface Received {
  readonly datagrams: number
  readonly messages: readonly Message[]
}

const NOTHING: Received = { datagrams: 0, messages: [] }

/**
 * The messages that are queued, as far as they fit. A datagram that was cut off is an overrun too: something is lost.
 *
 * Once a socket has overrun, the kernel drops everything for it, and says so no second time, until its queue has been
 * emptied (NETLINK_S_CONGESTED). So the queue is emptied before the overrun is told: what happens later than that is
 * received, or is another overrun. What was queued is no loss, it is older than the dump that must follow.
 */
function receive(socket: Socket, slotSize: number, timeout: number): Received | 'overrun' {
  const received = receiveOnce(socket, slotSize, timeout)
  if (received !== 'overrun') return received
  while (socket.receive(SLOTS, slotSize, LENGTHS, 0) !== 0);
  return 'overrun'
}

/** In bytes of their own, since the slots are used again. Without a closure: a packet waits while a miss is received. */
function receiveOnce(socket: Socket, slotSize: number, timeout: number): Received | 'overrun' {
  const datagrams = socket.receive(SLOTS, slotSize, LENGTHS, timeout)
  if (datagrams === 'overrun') return 'overrun'
  if (datagrams === 0) return NOTHING
  let size = 0
  for (let i = 0; i < datagrams; i++) {
    const length = LENGTHS[i] ?? 0
    if (length > slotSize) return 'overrun'
    size += align(length)
  }
  const bytes = new Uint8Array(size)
  for (let i = 0, start = 0; i < datagrams; i++) {
    const length = LENGTHS[i] ?? 0
    bytes.set(SLOTS.subarray(i * slotSize, i * slotSize + length), start)
    start += align(length)
  }
  return { datagrams, messages: splitMessages(bytes) }
}
