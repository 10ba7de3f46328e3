/**
 * Misses and their answers: what is desired only because the kernel asks for it.
 *
 * An L3 miss is an actual neighbour that is INCOMPLETE, an L2 miss an actual FDB entry without a destination; the answer is
 * the same entry as desired. So a miss that was lost is found by the next read, and an answer whose lease went is pruned.
 */

import { type Answer, type Entry, keyOf, type Operation, type Scope } from '../state.ts'
import type { Answers } from './answers.ts'
import type { Cell, Cells } from './cells.ts'
import { Unanswered } from './unanswered.ts'

export class Misses {
  readonly #scope: Scope
  readonly #cells: Cells
  readonly #answers: Answers
  readonly #unanswered = new Unanswered()

  constructor(scope: Scope, cells: Cells, answers: Answers) {
    this.#scope = scope
    this.#cells = cells
    this.#answers = answers
  }

  /** The neighbour or FDB entry that answers a miss, or that an earlier answer should be. */
  answer(actual: Entry | undefined): Entry | undefined {
    if (actual?.kind === 'fdb' && this.#scope.fdbOnDemand.has(actual.link)) {
      const destination = this.#answers.findDestination(actual.link, actual.mac)
      return destination && { ...actual, destination }
    }
    if (actual?.kind !== 'neighbour' || !this.#scope.onDemand.has(actual.link)) return undefined
    const mac = this.#answers.find(actual.link, actual.ip)
    return mac && { ...actual, mac, state: 'permanent' }
  }

  /** The FDB entries that the answers may be for. */
  *destinations(answers: readonly Answer[]): Generator<Cell> {
    for (const { link, mac, destination } of answers) {
      const cell = destination && this.#cells.fdb(link, mac)
      if (cell !== undefined) yield cell
    }
  }

  /**
   * A neighbour on a link whose FDB entries are on demand comes with the entry that it leads to: the packet that made the
   * miss goes out at once, and an L2 miss that nobody heard is made good. Undefined when it is there.
   */
  forwarding(neighbour: Entry | undefined): Operation | undefined {
    if (neighbour?.kind !== 'neighbour' || !this.#scope.fdbOnDemand.has(neighbour.link)) return undefined
    if (neighbour.state !== 'permanent' || neighbour.mac === undefined) return undefined
    const { link, mac } = neighbour
    const destination = this.#answers.findDestination(link, mac)
    const actual = this.#cells.fdb(link, mac)?.actual
    if (destination === undefined || (actual?.kind === 'fdb' && actual.destination !== undefined))
      return undefined
    return { verb: 'add', entry: { kind: 'fdb', link, mac, destination }, why: 'a neighbour leads to it' }
  }

  /**
   * An L3 miss for an address outside every lease is left to the kernel, until there are too many of them. `refused`: it
   * is a new one.
   */
  leave(actual: Entry): { readonly refused: boolean; readonly operation?: Operation } {
    if (
      actual.kind !== 'neighbour' ||
      actual.state !== 'incomplete' ||
      !this.#scope.onDemand.has(actual.link)
    ) {
      this.settled(actual)
      return { refused: false }
    }
    const refused = this.#unanswered.add(keyOf(actual))
    if (!this.#unanswered.full) return { refused }
    return { refused, operation: { verb: 'delete', entry: actual, why: 'outside every lease' } }
  }

  /** It has an answer, or is no miss any more. */
  settled(entry: Entry): void {
    if (this.#unanswered.any) this.#unanswered.delete(keyOf(entry))
  }
}

/** Whether the kernel waits for a neighbour, or misses an FDB entry, and is told it. */
export function isAnswer({ actual }: Operation): boolean {
  if (actual?.kind === 'fdb') return actual.destination === undefined
  return actual?.kind === 'neighbour' && actual.state === 'incomplete'
}

/** Whether the kernel is told that there is no answer. */
export function isRefusal({ verb, entry }: Operation): boolean {
  return verb === 'delete' && entry.kind === 'neighbour' && entry.state === 'incomplete'
}
