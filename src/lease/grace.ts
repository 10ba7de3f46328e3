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
  /** Leases that are absent, and kept. */
  readonly #kept = new Map<LeaseKey, Lease>()
  /** Those of them whose owners are waited for. */
  readonly #held = new Set<LeaseKey>()
  #until = 0
  #outage: number | undefined
  #snapshot: LeaseSnapshot | undefined

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
    const last = this.#snapshot
    const replaced = last !== undefined && last.incarnation !== snapshot.incarnation
    this.#snapshot = snapshot
    for (const [key, lease] of this.#absent(last, snapshot)) {
      const waited = replaced || expiredIn(lease, this.#outage, now)
      if (waited && !this.#held.has(key)) {
        this.#held.add(key)
        this.#until = now + this.#time
      }
      if (waited || isUnreadable(lease, snapshot)) this.#kept.set(key, lease)
    }
    this.#outage = undefined
    return this.#known(snapshot, snapshot.changed, now)
  }

  /** To be called at the deadline: the leases to act on from then. */
  expire(now: number): Known | undefined {
    return this.#snapshot && this.#known(this.#snapshot, new Set(), now)
  }

  #known(snapshot: LeaseSnapshot, changed: ReadonlySet<LeaseKey> | undefined, now: number): Known {
    const released = this.#release(snapshot, now)
    const { leases } = snapshot
    return {
      leases: this.#kept.size === 0 ? leases : new Map([...this.#kept, ...leases]),
      changed: changed && released.length > 0 ? new Set([...changed, ...released]) : changed,
    }
  }

  /** What was there and is not. */
  #absent(
    last: LeaseSnapshot | undefined,
    { leases, changed, gone }: LeaseSnapshot,
  ): Iterable<[LeaseKey, Lease]> {
    // The first snapshot of another watch says nothing of what the last watch knew.
    if (changed !== undefined || last === undefined) return gone
    return [...last.leases].filter(([key]) => !leases.has(key))
  }

  /** Lets go of what is there again, or need not be kept any longer. Returns the keys. */
  #release(snapshot: LeaseSnapshot, now: number): LeaseKey[] {
    const { leases } = snapshot
    const released: LeaseKey[] = []
    for (const [key, lease] of this.#kept) {
      if (now >= this.#until || leases.has(key)) this.#held.delete(key)
      if (!leases.has(key) && (this.#held.has(key) || isUnreadable(lease, snapshot))) continue
      this.#kept.delete(key)
      released.push(key)
    }
    return released
  }
}

/** Whether the entry of a lease that was is there, and cannot be read. */
function isUnreadable({ key, node }: Lease, { malformed }: LeaseSnapshot): boolean {
  return malformed.has(node ?? key)
}

function expiredIn({ expires }: Lease, outage: number | undefined, now: number): boolean {
  return outage !== undefined && expires !== undefined && expires >= outage && expires <= now
}
