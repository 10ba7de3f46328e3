/**
 * The two sides of every key: the entry that is desired and the one that the kernel holds. One table for both, so that a
 * key is held once, an entry that is as desired is held once, and their comparison looks nothing up.
 */

import type { Entry, Key, KernelState } from '../state.ts'

interface MutableCell {
  readonly key: Key
  desired: Entry | undefined
  actual: Entry | undefined
}

export type Cell = Readonly<MutableCell>

type Side = 'desired' | 'actual'

export class Cells {
  readonly #cells = new Map<Key, MutableCell>()
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

  /** The cell of a key, made when there is none: then one of its sides is to be put. */
  at(key: Key): Cell {
    const found = this.#cells.get(key)
    if (found !== undefined) return found
    const cell = { key, desired: undefined, actual: undefined }
    this.#cells.set(key, cell)
    return cell
  }

  /** Puts one side of a cell that is here, or takes it away. */
  put(side: Side, cell: MutableCell, entry: Entry | undefined): void {
    this.#sizes[side] += Number(entry !== undefined) - Number(cell[side] !== undefined)
    cell[side] = entry
    if (cell.desired === undefined && cell.actual === undefined) this.#cells.delete(cell.key)
  }

  /** Puts one side of a key, or takes it away. */
  set(side: Side, key: Key, entry: Entry | undefined): void {
    this.put(side, this.at(key), entry)
  }

  /** Takes one side away from all. */
  clear(side: Side): void {
    if (this.#sizes[side] === 0) return
    for (const cell of this.#cells.values()) this.put(side, cell, undefined)
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
