/**
 * L3 misses for addresses outside every lease: the kernel is waiting for an answer that nobody has.
 *
 * A few of them wait out the kernel's own time (3 s), and are answered if their lease comes meanwhile. Many of them (a
 * port scan) would fill the neighbour table, whose limit (gc_thresh3, 1024) counts entries that are being resolved,
 * and then no known address could be resolved either: so above a bound they are removed at once, which also tells
 * the sender that the host is unreachable.
 */

import type { Key } from '../state.ts'

const BOUND = 256

export class Unanswered {
  readonly #keys = new Set<Key>()

  get full(): boolean {
    return this.#keys.size > BOUND
  }

  /** Returns whether the miss is a new one. */
  add(key: Key): boolean {
    if (this.#keys.has(key)) return false
    this.#keys.add(key)
    return true
  }

  delete(key: Key): void {
    this.#keys.delete(key)
  }
}
