/** What is known of each lease in the registry: whether it is used, and whether the kernel holds all that it needs. */

import type { Outcome } from '../lease/admission.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { type Failure, type Key, keyOf, type Share } from '../state.ts'
import { printable } from './printable.ts'
import type { PeerStatus } from './status.ts'
import { tellFailure } from './words.ts'

interface Known {
  readonly outcome: Outcome
  readonly lease: Lease
}

export class Peers {
  readonly #known = new Map<LeaseKey, Known>()
  readonly #shares = new Map<LeaseKey, Share>()
  /** Entries that could not be read as leases, with the reason. */
  malformed: ReadonlyMap<string, string> = new Map()

  get size(): number {
    return this.#known.size
  }

  set(key: LeaseKey, known: Known): void {
    this.#known.set(key, known)
  }

  /** The entries that a lease stands for; undefined when it stands for none any more. */
  setShare(key: LeaseKey, share: Share | undefined): void {
    if (share === undefined) this.#shares.delete(key)
    else this.#shares.set(key, share)
  }

  /** Returns what the outcome was. */
  delete(key: LeaseKey): Outcome | undefined {
    const known = this.#known.get(key)
    this.#known.delete(key)
    return known?.outcome
  }

  /** Whether the entry of that key is a peer's, and not our own. */
  holds(key: Key): boolean {
    for (const { entries } of this.#shares.values()) {
      if (entries.some((entry) => keyOf(entry) === key)) return true
    }
    return false
  }

  statuses(failures: ReadonlyMap<Key, Failure>): PeerStatus[] {
    const statuses: PeerStatus[] = []
    for (const [key, { outcome, lease }] of this.#known) {
      if (outcome.kind === 'own') continue
      const subnet = lease.subnets.inet ?? key
      const publicIp = lease.publicIps.inet ?? ''
      if (outcome.kind !== 'admitted') {
        statuses.push({ subnet, publicIp, state: outcome.kind, why: printable(outcome.reason) })
        continue
      }
      const failure = this.#shares
        .get(key)
        ?.entries.map((entry) => failures.get(keyOf(entry)))
        .find((candidate) => candidate !== undefined)
      const state = failure === undefined ? 'in sync' : 'failed'
      statuses.push({ subnet, publicIp, state, why: failure === undefined ? '' : tellFailure(failure) })
    }
    for (const [name, why] of this.malformed) {
      statuses.push({ subnet: printable(name), publicIp: '', state: 'refused', why: printable(why) })
    }
    return statuses
  }
}
