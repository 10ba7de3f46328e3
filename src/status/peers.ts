/** What is known of each lease in the registry: whether it is used, and whether the kernel holds all that it needs. */

import type { Outcome } from '../lease/judge.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { type Failure, type Key, keyOf, type Share } from '../state.ts'
import { printable } from './printable.ts'
import type { PeerState, PeerStatus } from './status.ts'
import { tellFailure } from './words.ts'

/** What a peer's lease needs in the kernel: a backend's `peer`. */
export type ShareOf = (lease: Lease) => Share

type Failures = ReadonlyMap<Key, Failure>

/** What failed beside the kernel's tables, by lease. */
type StepFailures = ReadonlyMap<LeaseKey, string>

/** What a status says of where a host is. */
type Names = Pick<PeerStatus, 'subnet' | 'ipv6Subnet' | 'publicIp' | 'publicIpv6'>

const NAMELESS: Names = { subnet: '', ipv6Subnet: '', publicIp: '', publicIpv6: '' }

/** For the log too: without what the host does not have. */
export function namesOf({ subnets, publicIps }: Pick<Lease, 'subnets' | 'publicIps'>): Partial<Names> {
  return {
    ...(subnets.inet !== undefined && { subnet: subnets.inet }),
    ...(subnets.inet6 !== undefined && { ipv6Subnet: subnets.inet6 }),
    ...(publicIps.inet !== undefined && { publicIp: publicIps.inet }),
    ...(publicIps.inet6 !== undefined && { publicIpv6: publicIps.inet6 }),
  }
}

export class Peers {
  /** Both are those of who judges the leases, and change with what is known. */
  #leases: ReadonlyMap<LeaseKey, Lease> = new Map()
  #outcomes: ReadonlyMap<LeaseKey, Outcome> = new Map()
  /** Entries that could not be read as leases, with the reason. */
  #malformed: ReadonlyMap<string, string> = new Map()
  stepFailures: StepFailures = new Map()

  /** Leases, our own among them. */
  get size(): number {
    return this.#outcomes.size
  }

  get malformed(): ReadonlyMap<string, string> {
    return this.#malformed
  }

  set(
    leases: ReadonlyMap<LeaseKey, Lease>,
    outcomes: ReadonlyMap<LeaseKey, Outcome>,
    malformed: ReadonlyMap<string, string>,
  ): void {
    this.#leases = leases
    this.#outcomes = outcomes
    this.#malformed = malformed
  }

  /** The failures that are no peer's, but ours, or those of a lease that is gone. */
  own(failures: Failures, shareOf: ShareOf): string[] {
    const theirs = this.#failed(failures, shareOf)
    const own = [...failures].filter(([key]) => !theirs.keys.has(key))
    const steps = [...this.stepFailures].filter(([key]) => this.#outcomes.get(key)?.kind !== 'admitted')
    return [...own.map(([, failure]) => tellFailure(failure)), ...steps.map(([, why]) => why)]
  }

  /** How many leases of other hosts are in each state. */
  count(failures: Failures, shareOf: ShareOf): Record<PeerState, number> {
    const counts = { 'in sync': 0, failed: 0, refused: this.#malformed.size, ignored: 0 }
    const failed = this.#failed(failures, shareOf).leases
    for (const [key, { kind }] of this.#outcomes) {
      if (kind !== 'own') counts[kind === 'admitted' ? (failed.has(key) ? 'failed' : 'in sync') : kind]++
    }
    return counts
  }

  statuses(failures: Failures, shareOf: ShareOf): PeerStatus[] {
    const statuses: PeerStatus[] = []
    const failed = this.#failed(failures, shareOf).leases
    for (const [key, outcome] of this.#outcomes) {
      if (outcome.kind === 'own') continue
      const lease = this.#leases.get(key)
      const named = { ...NAMELESS, ...(lease === undefined ? { subnet: key } : namesOf(lease)) }
      if (outcome.kind !== 'admitted') {
        statuses.push({ ...named, state: outcome.kind, why: printable(outcome.reason) })
        continue
      }
      const failure = failed.get(key)
      const state = failure === undefined ? 'in sync' : 'failed'
      statuses.push({ ...named, state, why: failure ?? '' })
    }
    for (const [name, why] of this.#malformed) {
      statuses.push({ ...NAMELESS, subnet: printable(name), state: 'refused', why: printable(why) })
    }
    return statuses
  }

  /** The failures that are a peer's: their keys, and one for each lease. Looks at the leases only when there are any. */
  #failed(failures: Failures, shareOf: ShareOf): { leases: Map<LeaseKey, string>; keys: Set<Key> } {
    const leases = new Map(this.stepFailures)
    const keys = new Set<Key>()
    if (failures.size === 0) return { leases, keys }
    for (const [lease, outcome] of this.#outcomes) {
      if (outcome.kind !== 'admitted') continue
      for (const key of shareOf(outcome.lease).entries.map(keyOf)) {
        const failure = failures.get(key)
        if (failure === undefined) continue
        keys.add(key)
        leases.set(lease, leases.get(lease) ?? tellFailure(failure))
      }
    }
    return { leases, keys }
  }
}
