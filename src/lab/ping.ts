/**
 * ping(8) from inside any network namespace, with its results as data: a fresh machine has no ping, and "no packet
 * was lost" is a thing to be counted.
 */

import { randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Family, type Ip, ipBytes, ipFamily } from '../address/ip.ts'
import { openIcmp, type Socket } from '../native.ts'
import { decodeEchoReply, encodeEchoRequest } from './echo.ts'

/** As ping(8): 64 bytes of ICMP with its header. */
const DATA_LENGTH = 56
const PACKET_MAX = 2048
const BATCH = 64

export interface PingOptions {
  /** Path of the namespace, `/run/netns/x`; undefined for the process's own. */
  readonly netns: string | undefined
  readonly destination: Ip
  /** Undefined: until the signal. */
  readonly count?: number
  /** Milliseconds between two requests. */
  readonly interval: number
  /** Milliseconds that a reply may take. Only the last ones are waited for. */
  readonly timeout: number
  /** Called as soon as a request is out, with the time of performance.now() just before. */
  readonly onSent?: (at: number) => void
  /** Sends no more; the replies that are out are still waited for. */
  readonly signal?: AbortSignal
}

export interface Reply {
  readonly from: Ip
  /** From 1, and not modulo 2^16. */
  readonly sequence: number
  /** Of IPv4 only. */
  readonly ttl: number | undefined
  /** Bytes of ICMP. */
  readonly length: number
  /** Round trip in milliseconds. */
  readonly time: number
}

export interface PingResult {
  readonly sent: number
  readonly replies: readonly Reply[]
  /** Sequence numbers without a reply. */
  readonly lost: readonly number[]
  /** What the kernel said to requests that it did not send, each text once: `ENETUNREACH: network is unreachable`. */
  readonly errors: readonly string[]
}

/** Sends echo requests and waits for their replies; `onReply` hears of each as it comes. */
export async function ping(options: PingOptions, onReply?: (reply: Reply) => void): Promise<PingResult> {
  const socket = openIcmp(options.netns, ipBytes(options.destination))
  const pinger = new Pinger(socket, options.destination, onReply)
  const receiving = pinger.receive()
  try {
    await sendAll(pinger, options)
    for (let waited = 0; waited < options.timeout && pinger.waiting > 0; waited += 5) await sleep(5)
  } finally {
    socket.close()
    await receiving
  }
  return pinger.result()
}

/** Keeps to the interval from the first request on: a late timer is caught up with. */
async function sendAll(pinger: Pinger, options: PingOptions): Promise<void> {
  const { count = Number.POSITIVE_INFINITY, interval, onSent, signal } = options
  const start = performance.now()
  for (let sequence = 1; sequence <= count && signal?.aborted !== true; sequence++) {
    const at = performance.now()
    pinger.send(sequence, at)
    onSent?.(at)
    if (sequence < count) await pause(start + sequence * interval - performance.now(), signal)
  }
}

async function pause(duration: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(Math.max(0, duration), undefined, signal === undefined ? {} : { signal })
  } catch (error) {
    if (signal?.aborted !== true) throw error
  }
}

/** One run: what was sent when, and what came back. */
class Pinger {
  readonly #socket: Socket
  readonly #destination: Ip
  readonly #family: Family
  readonly #onReply: ((reply: Reply) => void) | undefined
  /** Tells our replies from those of another ping to the same address. */
  readonly #identifier = randomInt(0x10000)
  readonly #packets = new Uint8Array(BATCH * PACKET_MAX)
  readonly #lengths = new Uint32Array(BATCH)
  /** Sequence modulo 2^16 → sequence and time of sending. */
  readonly #waiting = new Map<number, { readonly sequence: number; readonly at: number }>()
  readonly #replies: Reply[] = []
  readonly #lost: number[] = []
  readonly #errors = new Set<string>()
  #sent = 0

  constructor(socket: Socket, destination: Ip, onReply: ((reply: Reply) => void) | undefined) {
    this.#socket = socket
    this.#destination = destination
    this.#family = ipFamily(destination)
    this.#onReply = onReply
  }

  get waiting(): number {
    return this.#waiting.size
  }

  send(sequence: number, at: number): void {
    const key = sequence % 0x10000
    this.#giveUp(key)
    this.#waiting.set(key, { sequence, at })
    this.#sent++
    try {
      this.#socket.send(encodeEchoRequest(this.#family, this.#identifier, key, DATA_LENGTH))
    } catch (error) {
      this.#giveUp(key)
      this.#errors.add((error as Error).message)
    }
  }

  /** Ends when the socket is closed. */
  async receive(): Promise<void> {
    while (await this.#socket.readable()) {
      const count = this.#take()
      const at = performance.now()
      for (let i = 0; i < count; i++) {
        const length = Math.min(this.#lengths[i] ?? 0, PACKET_MAX)
        this.#match(this.#packets.subarray(i * PACKET_MAX, i * PACKET_MAX + length), at)
      }
    }
  }

  result(): PingResult {
    const lost = [...this.#lost, ...Array.from(this.#waiting.values(), ({ sequence }) => sequence)]
    return { sent: this.#sent, replies: this.#replies, lost, errors: [...this.#errors] }
  }

  #take(): number {
    try {
      const count = this.#socket.receive(this.#packets, PACKET_MAX, this.#lengths, 0)
      return count === 'overrun' ? 0 : count
    } catch (error) {
      // A destination that refuses ICMP makes the socket fail once; its request stays without a reply.
      this.#errors.add((error as Error).message)
      return 0
    }
  }

  #match(packet: Uint8Array, at: number): void {
    const echo = decodeEchoReply(this.#family, packet)
    if (echo === undefined || echo.identifier !== this.#identifier) return
    const request = this.#waiting.get(echo.sequence)
    if (request === undefined) return
    this.#waiting.delete(echo.sequence)
    const { from = this.#destination, ttl, length } = echo
    const reply: Reply = { from, ttl, length, sequence: request.sequence, time: at - request.at }
    this.#replies.push(reply)
    this.#onReply?.(reply)
  }

  #giveUp(key: number): void {
    const request = this.#waiting.get(key)
    if (request === undefined) return
    this.#waiting.delete(key)
    this.#lost.push(request.sequence)
  }
}

export function formatReply({ length, from, sequence, ttl, time }: Reply): string {
  const hops = ttl === undefined ? '' : ` ttl=${ttl}`
  return `${length} bytes from ${from}: icmp_seq=${sequence}${hops} time=${time.toFixed(3)} ms`
}

/** The last lines of ping(8). */
export function formatPingResult({ sent, replies, lost, errors }: PingResult): string[] {
  const percent = sent === 0 ? 0 : (100 * lost.length) / sent
  const lines = [
    ...errors.map((error) => `ping: ${error}`),
    `${sent} packets transmitted, ${replies.length} received, ${Number(percent.toFixed(2))}% packet loss`,
  ]
  if (replies.length > 0) {
    const times = replies.map(({ time }) => time).toSorted((a, b) => a - b)
    const mean = times.reduce((sum, time) => sum + time, 0) / times.length
    const [min = 0, max = 0] = [times[0], times.at(-1)]
    lines.push(`rtt min/avg/max = ${min.toFixed(3)}/${mean.toFixed(3)}/${max.toFixed(3)} ms`)
  }
  return lines
}
