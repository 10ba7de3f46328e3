/**
 * Absence that proves nothing. When the registry's store was replaced (deleted and made again, restored from a backup),
 * its first snapshots lack leases whose owners have not come back yet: pruning them would cut hosts off that are alive.
 * What was known before is kept for a while; its owner, or the end of the grace time, decides.
 */

import type { Lease, LeaseKey } from './lease.ts'
import type { LeaseSnapshot } from './registry.ts'

export class Grace {
  /** Milliseconds. */
  readonly #time: number
  readonly #held = new Map<LeaseKey, Lease>()
  #incarnation: string | undefined
  #known: ReadonlyMap<LeaseKey, Lease> = new Map()
  #until = 0

  constructor(time: number) {
    this.#time = time
  }

  /** When `expire` is to be called; undefined while nothing is held. Milliseconds, as `now`. */
  get deadline(): number | undefined {
    return this.#held.size === 0 ? undefined : this.#until
  }

  get held(): ReadonlyMap<LeaseKey, Lease> {
    return this.#held
  }

  /** The leases to act on: those of the snapshot, and those that are held. */
  take(snapshot: LeaseSnapshot, now: number): ReadonlyMap<LeaseKey, Lease> {
    if (this.#incarnation !== undefined && snapshot.incarnation !== this.#incarnation) {
      for (const [key, lease] of this.#known) this.#held.set(key, lease)
      this.#until = now + this.#time
    }
    this.#incarnation = snapshot.incarnation
    this.#known = snapshot.leases
    for (const key of snapshot.leases.keys()) this.#held.delete(key)
    if (now >= this.#until) this.#held.clear()
    return this.#held.size === 0 ? snapshot.leases : new Map([...snapshot.leases, ...this.#held])
  }

  /** Lets go of what is held after the deadline. Returns the leases to act on. */
  expire(now: number): ReadonlyMap<LeaseKey, Lease> {
    if (now >= this.#until) this.#held.clear()
    return this.#held.size === 0 ? this.#known : new Map([...this.#known, ...this.#held])
  }
}
