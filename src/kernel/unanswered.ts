/**
 * L3 misses for addresses outside every lease: the kernel is waiting for an answer that nobody has.
 *
 * A few of them wait out the kernel's own time (3 s), and are answered if their lease comes meanwhile. Many of them (a
 * port scan) would fill the neighbour table, whose limit (gc_thresh3, 1024) counts entries that are being resolved, and
 * the sender's socket buffer, which is charged for each waiting packet (about 250 fill it); then no known address could
 * be reached either. So above a bound they are removed at once, which also tells the sender "host unreachable".
 */

import type { Key } from '../state.ts'

const BOUND = 64

export class Unanswered {
  readonly #keys = new Set<Key>()

  get any(): boolean {
    return this.#keys.size > 0
  }

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
