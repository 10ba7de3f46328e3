/**
 * Absence that proves nothing. A lease that is missing from a snapshot is gone, except in three cases, where pruning it
 * would cut off a host that is alive:
 *
 * - the store was replaced (deleted and made again, restored from a backup): its owner has not come back yet;
 * - it expired while the registry was unavailable: its owner could not renew it;
 * - its entry is there and cannot be read.
 *
 * In the first two it is kept until its owner takes it again, at most for the grace time; in the last, as long as the
 * entry stands.
 */

import type { Lease, LeaseKey } from './lease.ts'
import type { LeaseSnapshot } from './registry.ts'

export type Known = Pick<LeaseSnapshot, 'leases' | 'changed'>

export class Grace {
  readonly #time: number
  readonly #held = new Set<LeaseKey>()
  #until = 0
  #outage: number | undefined
  #snapshot: LeaseSnapshot | undefined
  /** What was returned last; the snapshot's own map, unless something was kept. */
  #known: ReadonlyMap<LeaseKey, Lease> = new Map()

  /** @param time The grace time. All times are in milliseconds since the epoch. */
  constructor(time: number) {
    this.#time = time
  }

  /** How many leases are kept for their owners to come back. */
  get held(): number {
    return this.#held.size
  }

  /** When the snapshot is to be taken again; undefined while nothing is held. */
  get deadline(): number | undefined {
    return this.held === 0 ? undefined : this.#until
  }

  unavailable(now: number): void {
    this.#outage ??= now
  }

  /** The leases to act on. Costs what changed, unless something is kept. */
  take(snapshot: LeaseSnapshot, now: number): Known {
    const replaced = this.#snapshot !== undefined && this.#snapshot.incarnation !== snapshot.incarnation
    const outage = this.#outage
    const merged = this.#snapshot !== undefined && this.#known !== this.#snapshot.leases
    const unreadable = [...snapshot.malformed.keys()].some((key) => this.#known.has(key as LeaseKey))
    this.#snapshot = snapshot
    this.#outage = undefined
    if (!replaced && outage === undefined && !merged && !unreadable) {
      this.#known = snapshot.leases
      return snapshot
    }
    const leases = new Map(snapshot.leases)
    for (const [key, lease] of this.#known) {
      if (leases.has(key)) continue
      if ((replaced || expiredIn(lease, outage, now)) && !this.#held.has(key)) {
        this.#held.add(key)
        this.#until = now + this.#time
      }
      const kept = this.#held.has(key) && now < this.#until
      if (kept || snapshot.malformed.has(key)) leases.set(key, lease)
    }
    for (const key of this.#held) {
      if (snapshot.leases.has(key) || !leases.has(key) || now >= this.#until) this.#held.delete(key)
    }
    this.#known = leases.size === snapshot.leases.size ? snapshot.leases : leases
    return { leases: this.#known, changed: undefined }
  }

  /** To be called at the deadline: the leases to act on from then. */
  expire(now: number): Known | undefined {
    return this.#snapshot && this.take(this.#snapshot, now)
  }
}

function expiredIn({ expires }: Lease, outage: number | undefined, now: number): boolean {
  return outage !== undefined && expires !== undefined && expires >= outage && expires <= now
}
