/** Operations that failed: when each is tried again. What failed is data, shown in health until it holds. */

import { type Entry, type Failure, type Key, keyOf } from '../state.ts'

/** Milliseconds: the first pause, doubled with each attempt up to the longest. */
const FIRST_PAUSE = 100
const LONGEST_PAUSE = 30_000

interface Retry {
  failure: Failure
  attempts: number
  at: number
}

export class Retries {
  readonly #retries = new Map<Key, Retry>()
  #readAgain = Number.POSITIVE_INFINITY

  get failures(): Failure[] {
    return [...this.#retries.values()].map(({ failure }) => failure)
  }

  get size(): number {
    return this.#retries.size
  }

  /** When the next one is due; Infinity when there is none. Milliseconds, as `now`. */
  get next(): number {
    let next = this.#readAgain
    for (const { at } of this.#retries.values()) next = Math.min(next, at)
    return next
  }

  failed(failure: Failure, now: number): void {
    const key = keyOf(failure.operation.entry)
    const attempts = (this.#retries.get(key)?.attempts ?? 0) + 1
    const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempts - 1))
    this.#retries.set(key, { failure, attempts, at: now + pause })
  }

  /** The kernel could not be read: a turn is due after a pause, whatever it finds to do. */
  unreadable(now: number): void {
    this.#readAgain = now + FIRST_PAUSE
  }

  /** What failed may succeed now: all of it is due. */
  hurry(): void {
    for (const retry of this.#retries.values()) retry.at = 0
  }

  settled(entry: Entry): void {
    if (this.#retries.size > 0) this.#retries.delete(keyOf(entry))
  }

  /** Whether an operation on the entry failed and its pause is not over. */
  paused(entry: Entry, now: number): boolean {
    const retry = this.#retries.get(keyOf(entry))
    return retry !== undefined && retry.at > now
  }

  due(now: number): Entry[] {
    if (this.#readAgain <= now) this.#readAgain = Number.POSITIVE_INFINITY
    return [...this.#retries.values()]
      .filter(({ at }) => at <= now)
      .map(({ failure }) => failure.operation.entry)
  }
}
