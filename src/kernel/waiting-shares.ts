/** Shares that are to be planned when the kernel is told of them. */

import type { Share } from '../state.ts'

export class WaitingShares {
  readonly #sources: Iterator<Share>[] = []

  /** They are asked for when they are taken, and not before. */
  add(shares: Iterable<Share>): void {
    this.#sources.push(shares[Symbol.iterator]())
  }

  /** Whether there may be one. */
  get any(): boolean {
    return this.#sources.length > 0
  }

  /** The next ones, at most so many. */
  take(count: number): Share[] {
    const taken: Share[] = []
    while (taken.length < count) {
      const next = this.#sources[0]?.next()
      if (next === undefined) break
      if (next.done === true) this.#sources.shift()
      else taken.push(next.value)
    }
    return taken
  }
}
