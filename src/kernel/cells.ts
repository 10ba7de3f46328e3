/**
 * The two sides of every key: the entry that is desired and the one that the kernel holds. One table for both, so that a
 * key is held once, an entry that is as desired is held once, and their comparison looks nothing up.
 */

import type { Entry, Key, KernelState } from '../state.ts'

export interface Cell {
  readonly key: Key
  readonly desired: Entry | undefined
  readonly actual: Entry | undefined
}

type Side = 'desired' | 'actual'

export class Cells {
  readonly #cells = new Map<Key, { key: Key; desired: Entry | undefined; actual: Entry | undefined }>()
  #sizes = { desired: 0, actual: 0 }

  get(key: Key): Cell | undefined {
    return this.#cells.get(key)
  }

  /** Keys that have at least one side. */
  values(): Iterable<Cell> {
    return this.#cells.values()
  }

  /** How many keys have that side. */
  size(side: Side): number {
    return this.#sizes[side]
  }

  /** Sets one side, or takes it away. */
  set(side: Side, key: Key, entry: Entry | undefined): void {
    const cell = this.#cells.get(key)
    if (cell === undefined) {
      if (entry === undefined) return
      this.#cells.set(
        key,
        side === 'desired'
          ? { key, desired: entry, actual: undefined }
          : { key, desired: undefined, actual: entry },
      )
      this.#sizes[side]++
      return
    }
    this.#sizes[side] += Number(entry !== undefined) - Number(cell[side] !== undefined)
    cell[side] = entry
    if (cell.desired === undefined && cell.actual === undefined) this.#cells.delete(key)
  }

  /** Takes one side away from all. */
  clear(side: Side): void {
    if (this.#sizes[side] === 0) return
    for (const { key } of this.#cells.values()) this.set(side, key, undefined)
  }

  /** One side as a state. */
  state(side: Side): KernelState {
    const state = new Map<Key, Entry>()
    for (const cell of this.#cells.values()) {
      const entry = cell[side]
      if (entry !== undefined) state.set(cell.key, entry)
    }
    return state
  }
}
