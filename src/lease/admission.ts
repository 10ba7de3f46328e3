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
import { PrefixMap } from '../address/prefix-map.ts'
import type { SubnetRange } from '../config/network-config.ts'
import { type Claim, Claims } from './claims.ts'
import type { Lease, LeaseKey } from './lease.ts'
import type { LeaseSnapshot } from './registry.ts'

export interface AdmissionRules {
  readonly ranges: PerFamily<SubnetRange>
  /** Our own lease. */
  readonly self: Lease
  readonly backendType: string
  /** The backend's view: whether its data can be used, and what it claims for itself alone. */
  readonly judge: (lease: Lease) => { readonly claims: readonly Claim[] } | { readonly refused: string }
}

/** An admitted lease is cut down to the families of our network. `ignored` is harmless: not meant for us. */
export type Outcome =
  | { readonly kind: 'own' }
  | { readonly kind: 'admitted'; readonly lease: Lease }
  | { readonly kind: 'ignored'; readonly reason: string }
  | { readonly kind: 'refused'; readonly reason: string }

/** Of one lease; undefined for one that is not there. */
export interface OutcomeChange {
  readonly before: Outcome | undefined
  readonly after: Outcome | undefined
}

export type OutcomeChanges = ReadonlyMap<LeaseKey, OutcomeChange>

/** A lease that is good by itself. */
interface Candidate {
  readonly kind: 'candidate'
  readonly lease: Lease
  readonly claims: readonly Claim[]
}

export class Admission {
  readonly #rules: AdmissionRules
  readonly #outcomes = new Map<LeaseKey, Outcome>()
  /** The leases that are good by themselves. What they claim is a function of each, and not kept. */
  readonly #candidates = new Map<LeaseKey, Lease>()
  readonly #subnets = new PrefixMap<LeaseKey[]>()
  readonly #claims = new Claims()

  constructor(rules: AdmissionRules) {
    this.#rules = rules
  }

  /** The outcome for every lease of the last snapshot. */
  get outcomes(): ReadonlyMap<LeaseKey, Outcome> {
    return this.#outcomes
  }

  /** The outcomes that differ from before. */
  update({ leases, changed }: Pick<LeaseSnapshot, 'leases' | 'changed'>): OutcomeChanges {
    const keys = changed ?? new Set([...this.#outcomes.keys(), ...leases.keys()])
    const changes = new Map<LeaseKey, OutcomeChange>()
    const before = this.#contested(keys)
    for (const key of keys) this.#forget(key)
    const met: LeaseKey[] = []
    for (const key of keys) {
      const lease = leases.get(key)
      const result = lease && judgeAlone(lease, this.#rules)
      if (result?.kind === 'candidate' && this.#remember(result)) met.push(key)
      const good = result?.kind === 'candidate'
      this.#record(key, good ? { kind: 'admitted', lease: result.lease } : result, changes)
    }
    const tied = new Set([...before, ...this.#contested([...before, ...met])])
    const rivals = [...tied].flatMap((key) => this.#candidate(key) ?? [])
    for (const [key, outcome] of decide(rivals)) this.#record(key, outcome, changes)
    return changes
  }

  /** Returns whether it meets one that is there: each contradiction shows when the later of the two is remembered. */
  #remember(candidate: Candidate): boolean {
    const { key, subnets } = candidate.lease
    let meets = false
    this.#candidates.set(key, candidate.lease)
    for (const subnet of Object.values(subnets)) {
      meets ||= this.#subnets.overlapping(subnet).length > 0
      const keys = this.#subnets.get(subnet)
      if (keys === undefined) this.#subnets.set(subnet, [key])
      else keys.push(key)
    }
    for (const claim of candidate.claims) {
      this.#claims.add(claim, key)
      meets ||= this.#claims.isContested(claim.name)
    }
    return meets
  }

  #forget(key: LeaseKey): void {
    const candidate = this.#candidate(key)
    if (candidate === undefined) return
    this.#candidates.delete(key)
    for (const subnet of Object.values(candidate.lease.subnets)) {
      const keys = this.#subnets.get(subnet)?.filter((other) => other !== key) ?? []
      if (keys.length === 0) this.#subnets.delete(subnet)
      else this.#subnets.set(subnet, keys)
    }
    for (const claim of candidate.claims) this.#claims.delete(claim, key)
  }

  #candidate(key: LeaseKey): Candidate | undefined {
    const lease = this.#candidates.get(key)
    return lease && candidateOf(lease, this.#rules)
  }

  /** Those among the keys that contradict another candidate, and all that a chain of contradictions ties to them. */
  #contested(keys: Iterable<LeaseKey>): Set<LeaseKey> {
    const found = new Set<LeaseKey>()
    const looked = new Set<string>()
    for (const first of keys) {
      const pending = [first]
      for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
        const candidate = found.has(key) ? undefined : this.#candidate(key)
        if (candidate === undefined) continue
        const rivals = this.#rivals(candidate, looked)
        if (rivals.length === 0 && key === first) continue
        found.add(key)
        pending.push(...rivals)
      }
    }
    return found
  }

  /** @param looked Claims that brought everybody already: a thousand hosts with one MAC are not compared in pairs. */
  #rivals({ lease, claims }: Candidate, looked: Set<string>): LeaseKey[] {
    const rivals = new Set<LeaseKey>()
    for (const subnet of Object.values(lease.subnets)) {
      for (const keys of this.#subnets.overlapping(subnet)) for (const key of keys) rivals.add(key)
    }
    for (const { name } of claims) {
      if (looked.has(name)) continue
      looked.add(name)
      for (const key of this.#claims.contestants(name)) rivals.add(key)
    }
    rivals.delete(lease.key)
    return [...rivals]
  }

  /** Keeps the outcome, and notes what it was before the update where it differs. */
  #record(key: LeaseKey, after: Outcome | undefined, changes: Map<LeaseKey, OutcomeChange>): void {
    const now = this.#outcomes.get(key)
    if (isSame(now, after)) return
    const noted = changes.get(key)
    const before = noted === undefined ? now : noted.before
    if (noted !== undefined && isSame(before, after)) changes.delete(key)
    else changes.set(key, { before, after })
    if (after === undefined) this.#outcomes.delete(key)
    else this.#outcomes.set(key, after)
  }
}

function isSame(a: Outcome | undefined, b: Outcome | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  if (a.kind === 'admitted' && b.kind === 'admitted') return a.lease === b.lease
  return a.kind === b.kind && ('reason' in a && a.reason) === ('reason' in b && b.reason)
}

/** From the oldest on, each is admitted that contradicts none admitted before it. Rivals must all be given. */
function decide(candidates: readonly Candidate[]): Map<LeaseKey, Outcome> {
  const outcomes = new Map<LeaseKey, Outcome>()
  const subnets = new PrefixMap<LeaseKey>()
  const holders = new Map<string, { value: string; key: LeaseKey }>()
  for (const candidate of candidates.toSorted(byAge)) {
    const { lease, claims } = candidate
    const reason = contradiction(candidate, subnets, holders)
    outcomes.set(lease.key, reason === undefined ? { kind: 'admitted', lease } : { kind: 'refused', reason })
    if (reason !== undefined) continue
    for (const subnet of Object.values(lease.subnets)) subnets.set(subnet, lease.key)
    for (const { name, value } of claims) if (!holders.has(name)) holders.set(name, { value, key: lease.key })
  }
  return outcomes
}

function byAge({ lease: a }: Candidate, { lease: b }: Candidate): number {
  return a.created - b.created || (a.key < b.key ? -1 : 1)
}

function contradiction(
  { lease, claims }: Candidate,
  subnets: PrefixMap<LeaseKey>,
  holders: ReadonlyMap<string, { value: string; key: LeaseKey }>,
): string | undefined {
  for (const subnet of Object.values(lease.subnets)) {
    // Of several always the same, whatever the order in which they came.
    const [older] = subnets.overlapping(subnet).sort()
    if (older !== undefined) return `${subnet} overlaps the older lease ${older}`
  }
  for (const { name, value } of claims) {
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
  let carried = false
  for (const family of ['inet', 'inet6'] as const) {
    const subnet = ours.subnets[family]
    const range = ranges[family]
    if (subnet === undefined || range === undefined) continue
    const reason = subnetFault(subnet, range, self.subnets[family]) ?? publicIpFault(ours, self, family)
    if (reason !== undefined) return { kind: 'refused', reason }
    carried = true
  }
  if (!carried) return { kind: 'ignored', reason: 'it has no subnet of our address family' }
  const result = judge(ours)
  if ('refused' in result) return { kind: 'refused', reason: result.refused }
  return { kind: 'candidate', lease: ours, claims: result.claims }
}

/** Of a lease that was judged good. */
function candidateOf(lease: Lease, { judge }: AdmissionRules): Candidate {
  const result = judge(lease)
  return { kind: 'candidate', lease, claims: 'claims' in result ? result.claims : [] }
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
