/**
 * Which leases may reach the kernel. Everything in the registry is hostile until it has passed here.
 *
 * A lease is judged alone (does it fit the network, does it leave us alone), then against the others: two leases
 * contradict each other when their subnets overlap, or when they claim the same thing (a VTEP MAC) with different
 * values (public IPs). The older one holds, and one that lost takes nothing from others. The outcome depends on the
 * leases alone and not on the order in which they came, so it is decided anew for those, and only those, that a
 * chain of contradictions ties to a lease that changed.
 */

import {
  type Family,
  type Ip,
  isLoopback,
  isMulticast,
  isUnspecified,
  type PerFamily,
} from '../address/ip.ts'
import { type Prefix, prefixCovers, prefixesOverlap } from '../address/prefix.ts'
import type { SubnetRange } from '../config/network-config.ts'
import type { Lease, LeaseKey } from './lease.ts'
import type { LeaseSnapshot } from './registry.ts'
import { SubnetIndex } from './subnet-index.ts'

export interface AdmissionRules {
  readonly ranges: PerFamily<SubnetRange>
  /** Our own lease. */
  readonly self: Lease
  readonly backendType: string
  /** The backend's view: whether its data can be used, and what it claims (name → value) for itself alone. */
  readonly judge: (
    lease: Lease,
  ) => { readonly claims: ReadonlyMap<string, string> } | { readonly refused: string }
}

/** An admitted lease is cut down to the families of our network. `ignored` is harmless: not meant for us. */
export type Outcome =
  | { readonly kind: 'own' }
  | { readonly kind: 'admitted'; readonly lease: Lease }
  | { readonly kind: 'ignored'; readonly reason: string }
  | { readonly kind: 'refused'; readonly reason: string }

/** A lease that is good by itself. */
interface Candidate {
  readonly kind: 'candidate'
  readonly lease: Lease
  readonly subnets: readonly Prefix[]
  readonly claims: ReadonlyMap<string, string>
}

export class Admission {
  readonly #rules: AdmissionRules
  readonly #outcomes = new Map<LeaseKey, Outcome>()
  readonly #candidates = new Map<LeaseKey, Candidate>()
  readonly #subnets = new SubnetIndex()
  /** Who claims a name, by the value claimed. */
  readonly #claimants = new Map<string, Map<string, Set<LeaseKey>>>()

  constructor(rules: AdmissionRules) {
    this.#rules = rules
  }

  /** The outcome for every lease of the last snapshot. */
  get outcomes(): ReadonlyMap<LeaseKey, Outcome> {
    return this.#outcomes
  }

  /** The outcomes that differ from before; undefined for a lease that is gone. */
  update({
    leases,
    changed,
  }: Pick<LeaseSnapshot, 'leases' | 'changed'>): ReadonlyMap<LeaseKey, Outcome | undefined> {
    const keys = changed ?? new Set([...this.#outcomes.keys(), ...leases.keys()])
    const before = this.#connected(keys)
    const outcomes = new Map<LeaseKey, Outcome | undefined>()
    for (const key of keys) {
      this.#forget(key)
      const lease = leases.get(key)
      const result = lease && judgeAlone(lease, this.#rules)
      if (result?.kind !== 'candidate') outcomes.set(key, result)
      else this.#remember(result)
    }
    const after = this.#connected([...before.keys(), ...keys])
    for (const [key, outcome] of decide([...after.values()])) outcomes.set(key, outcome)
    return this.#record(outcomes)
  }

  #remember(candidate: Candidate): void {
    const { key } = candidate.lease
    this.#candidates.set(key, candidate)
    for (const subnet of candidate.subnets) this.#subnets.add(subnet, key)
    for (const [name, value] of candidate.claims) {
      const values = this.#claimants.get(name) ?? new Map<string, Set<LeaseKey>>()
      this.#claimants.set(name, values.set(value, (values.get(value) ?? new Set()).add(key)))
    }
  }

  #forget(key: LeaseKey): void {
    const candidate = this.#candidates.get(key)
    if (candidate === undefined) return
    this.#candidates.delete(key)
    for (const subnet of candidate.subnets) this.#subnets.delete(subnet, key)
    for (const [name, value] of candidate.claims) {
      const values = this.#claimants.get(name)
      const keys = values?.get(value)
      keys?.delete(key)
      if (keys?.size === 0) values?.delete(value)
      if (values?.size === 0) this.#claimants.delete(name)
    }
  }

  /** The candidates among the keys, and all that a chain of contradictions ties to them. */
  #connected(keys: Iterable<LeaseKey>): Map<LeaseKey, Candidate> {
    const found = new Map<LeaseKey, Candidate>()
    const contested = new Set<string>()
    const pending = [...keys]
    for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
      const candidate = this.#candidates.get(key)
      if (candidate === undefined || found.has(key)) continue
      found.set(key, candidate)
      for (const subnet of candidate.subnets) {
        for (const rival of this.#subnets.overlapping(subnet)) if (!found.has(rival)) pending.push(rival)
      }
      for (const name of candidate.claims.keys()) {
        const values = this.#claimants.get(name)
        // One look brings everybody who claims it: a thousand hosts with one MAC are not compared in pairs.
        if (values === undefined || values.size === 1 || contested.has(name)) continue
        contested.add(name)
        for (const rivals of values.values()) for (const rival of rivals) pending.push(rival)
      }
    }
    return found
  }

  /** Keeps the outcomes, and returns those that are new. */
  #record(outcomes: ReadonlyMap<LeaseKey, Outcome | undefined>): ReadonlyMap<LeaseKey, Outcome | undefined> {
    const changes = new Map<LeaseKey, Outcome | undefined>()
    for (const [key, outcome] of outcomes) {
      if (isSame(this.#outcomes.get(key), outcome)) continue
      changes.set(key, outcome)
      if (outcome === undefined) this.#outcomes.delete(key)
      else this.#outcomes.set(key, outcome)
    }
    return changes
  }
}

function isSame(a: Outcome | undefined, b: Outcome | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  if (a.kind === 'admitted' && b.kind === 'admitted') return a.lease === b.lease
  return a.kind === b.kind && ('reason' in a && a.reason) === ('reason' in b && b.reason)
}

/** From the oldest on, each is admitted that contradicts none admitted before it. Rivals must all be given. */
function decide(candidates: Candidate[]): Map<LeaseKey, Outcome> {
  const outcomes = new Map<LeaseKey, Outcome>()
  const subnets = new SubnetIndex()
  const holders = new Map<string, { value: string; key: LeaseKey }>()
  for (const candidate of candidates.sort(byAge)) {
    const { lease, claims } = candidate
    const reason = contradiction(candidate, subnets, holders)
    outcomes.set(lease.key, reason === undefined ? { kind: 'admitted', lease } : { kind: 'refused', reason })
    if (reason !== undefined) continue
    for (const subnet of candidate.subnets) subnets.add(subnet, lease.key)
    for (const [name, value] of claims) if (!holders.has(name)) holders.set(name, { value, key: lease.key })
  }
  return outcomes
}

function byAge({ lease: a }: Candidate, { lease: b }: Candidate): number {
  return a.created - b.created || (a.key < b.key ? -1 : 1)
}

function contradiction(
  candidate: Candidate,
  subnets: SubnetIndex,
  holders: ReadonlyMap<string, { value: string; key: LeaseKey }>,
): string | undefined {
  for (const subnet of candidate.subnets) {
    for (const older of subnets.overlapping(subnet)) return `${subnet} overlaps the older lease ${older}`
  }
  for (const [name, value] of candidate.claims) {
    const holder = holders.get(name)
    if (holder === undefined || holder.value === value) continue
    return `${name} at ${value} is that of the older lease ${holder.key} at ${holder.value}`
  }
  return undefined
}

function judgeAlone(lease: Lease, { ranges, self, backendType, judge }: AdmissionRules): Candidate | Outcome {
  if (lease.key === self.key) return { kind: 'own' }
  const foreign = foreignType(lease.backendType, backendType)
  if (foreign !== undefined) return { kind: 'ignored', reason: foreign }
  const ours = restrict(lease, ranges)
  const subnets: Prefix[] = []
  for (const family of ['inet', 'inet6'] as const) {
    const subnet = ours.subnets[family]
    const range = ranges[family]
    if (subnet === undefined || range === undefined) continue
    const reason = subnetFault(subnet, range, self.subnets[family]) ?? publicIpFault(ours, self, family)
    if (reason !== undefined) return { kind: 'refused', reason }
    subnets.push(subnet)
  }
  if (subnets.length === 0) return { kind: 'ignored', reason: 'it has no subnet of our address family' }
  const result = judge(ours)
  if ('refused' in result) return { kind: 'refused', reason: result.refused }
  return { kind: 'candidate', lease: ours, subnets, claims: result.claims }
}

function foreignType(type: string, ours: string): string | undefined {
  if (type === ours) return undefined
  return type === '' ? 'no host has claimed it yet' : `its backend is ${type}, ours is ${ours}`
}

function subnetFault(subnet: Prefix, { network }: SubnetRange, own: Prefix | undefined): string | undefined {
  if (!prefixCovers(network, subnet)) return `${subnet} is outside the network ${network}`
  if (own !== undefined && prefixesOverlap(subnet, own)) return `${subnet} overlaps our own subnet ${own}`
  return undefined
}

function publicIpFault(lease: Lease, self: Lease, family: Family): string | undefined {
  const ip = lease.publicIps[family]
  if (ip === undefined) return `it has no public IP for ${lease.subnets[family]}`
  const kind = unusable(ip)
  if (kind !== undefined) return `public IP ${ip} is ${kind} address`
  return ip === self.publicIps[family] ? `public IP ${ip} is our own` : undefined
}

function unusable(ip: Ip): string | undefined {
  if (isUnspecified(ip)) return 'the unspecified'
  if (isLoopback(ip)) return 'a loopback'
  if (isMulticast(ip)) return 'a multicast'
  return ip === '255.255.255.255' ? 'the broadcast' : undefined
}

/** Without what belongs to families that our network does not have: no backend is tempted to program it. */
function restrict(lease: Lease, ranges: PerFamily<SubnetRange>): Lease {
  const cut = <T>({ inet, inet6 }: PerFamily<T>): PerFamily<T> => ({
    ...(inet !== undefined && ranges.inet !== undefined && { inet }),
    ...(inet6 !== undefined && ranges.inet6 !== undefined && { inet6 }),
  })
  const foreignFamily = (['inet', 'inet6'] as const).some(
    (family) =>
      ranges[family] === undefined &&
      (lease.subnets[family] ?? lease.publicIps[family] ?? lease.backendData[family]) !== undefined,
  )
  if (!foreignFamily) return lease
  const { subnets, publicIps, backendData } = lease
  return { ...lease, subnets: cut(subnets), publicIps: cut(publicIps), backendData: cut(backendData) }
}
