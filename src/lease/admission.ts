/**
 * Which leases may reach the kernel. Everything in the registry is hostile until it has passed here.
 *
 * A lease is judged alone (does it fit the network, does it leave us alone), then against the others: two leases
 * contradict each other when their subnets overlap, or when they claim the same thing (a VTEP MAC) with different
 * values (public IPs). The older one holds, and one that lost takes nothing from others. The outcome depends on the
 * leases alone and not on the order in which they came, so it is decided anew for those, and only those, that a
 * chain of contradictions ties to a lease that changed.
 */

import { FAMILIES } from '../address/ip.ts'
import { PrefixMap } from '../address/prefix-map.ts'
import { type Claimant, Claims, textOf } from './claims.ts'
import { type AdmissionRules, type Candidate, candidateOf, judgeAlone, type Outcome } from './judge.ts'
import type { Claim, Lease, LeaseKey } from './lease.ts'
import type { LeaseSnapshot } from './registry.ts'

/** Of one lease; undefined for one that is not there. */
export interface OutcomeChange {
  readonly key: LeaseKey
  readonly before: Outcome | undefined
  readonly after: Outcome | undefined
}

export class Admission {
  readonly #rules: AdmissionRules
  readonly #outcomes = new Map<LeaseKey, Outcome>()
  /** Those that are good by themselves and contradict an older one. The other good ones are admitted. */
  readonly #beaten = new Map<LeaseKey, Lease>()
  readonly #subnets = new PrefixMap<LeaseKey[]>()
  readonly #claims = new Claims()
  /** While leases are admitted one by one: who holds a name that others claim too. */
  readonly #holders = new Map<string, Claimant | undefined>()

  constructor(rules: AdmissionRules) {
    this.#rules = rules
  }

  /** The outcome for every lease of the last snapshot. */
  get outcomes(): ReadonlyMap<LeaseKey, Outcome> {
    return this.#outcomes
  }

  /**
   * The outcome of one lease more, at a start. They are to come from the oldest on: then each outcome is final, and the first
   * can be acted on before the last is judged.
   */
  admit(lease: Lease): Outcome {
    const known = this.#outcomes.get(lease.key)
    if (known !== undefined) return known
    const result = judgeAlone(lease, this.#rules)
    let outcome: Outcome
    if (result.kind !== 'candidate') outcome = result
    else {
      const reason = this.#remember(result) ? this.#lostTo(result) : undefined
      if (reason !== undefined) this.#beaten.set(lease.key, result.lease)
      outcome = outcomeOf(result.lease, reason)
    }
    this.#outcomes.set(lease.key, outcome)
    return outcome
  }

  /** The outcomes that differ from before, one for each lease. */
  update({ leases, changed }: Pick<LeaseSnapshot, 'leases' | 'changed'>): OutcomeChange[] {
    this.#holders.clear()
    const changes: OutcomeChange[] = []
    const known = changed ?? [...this.#outcomes.keys()]
    const before = this.#contested(known)
    for (const key of known) this.#forget(key)
    for (const key of known) if (!leases.has(key)) this.#record(key, undefined, changes)
    const met: LeaseKey[] = []
    for (const lease of changed === undefined ? leases.values() : pick(leases, changed)) {
      const result = judgeAlone(lease, this.#rules)
      if (result.kind !== 'candidate') this.#record(lease.key, result, changes)
      else {
        if (this.#remember(result)) met.push(lease.key)
        this.#record(lease.key, outcomeOf(result.lease), changes)
      }
    }
    const tied = new Set([...before, ...this.#contested([...before, ...met])])
    return tied.size === 0 ? changes : this.#settle([...tied], changes)
  }

  /** Decides between leases that contradict each other, each of which was recorded as if it were alone. */
  #settle(tied: readonly LeaseKey[], alone: readonly OutcomeChange[]): OutcomeChange[] {
    const changes = new Map(alone.map((change) => [change.key, change]))
    const rivals = tied.flatMap((key) => this.#candidate(key) ?? [])
    for (const { lease, reason } of decide(rivals)) {
      const { key } = lease
      const before = changes.has(key) ? changes.get(key)?.before : this.#outcomes.get(key)
      const after = outcomeOf(lease, reason)
      this.#outcomes.set(key, after)
      if (reason === undefined) this.#beaten.delete(key)
      else this.#beaten.set(key, lease)
      if (isSame(before, after)) changes.delete(key)
      else changes.set(key, { key, before, after })
    }
    return [...changes.values()]
  }

  /** Why the youngest of all is refused, by one that is admitted. Otherwise it holds what nobody else holds. */
  #lostTo(candidate: Candidate): string | undefined {
    const { lease, claims } = candidate
    const subnets = new PrefixMap<LeaseKey>()
    for (const subnet of Object.values(lease.subnets)) {
      for (const keys of this.#subnets.overlapping(subnet)) {
        const older = this.#admittedOf(keys)
        if (older === undefined) continue
        for (const each of Object.values(older.subnets)) subnets.set(each, older.key)
      }
    }
    const contested = claims.filter((claim) => this.#claims.isContested(claim))
    for (const claim of contested) {
      const name = textOf(claim)
      if (!this.#holders.has(name)) this.#holders.set(name, this.#holderOf(claim))
    }
    const reason = contradiction(candidate, subnets, this.#holders)
    if (reason !== undefined) return reason
    for (const claim of contested) {
      const name = textOf(claim)
      if (this.#holders.get(name) === undefined)
        this.#holders.set(name, { value: claim.value, key: lease.key })
    }
    return undefined
  }

  #holderOf(wanted: Claim): Claimant | undefined {
    const lease = this.#admittedOf(this.#claims.contestants(wanted))
    if (lease === undefined) return undefined
    const name = textOf(wanted)
    const claim = candidateOf(lease, this.#rules).claims.find((each) => textOf(each) === name)
    return claim && { value: claim.value, key: lease.key }
  }

  /** The first of them that is admitted. */
  #admittedOf(keys: Iterable<LeaseKey>): Lease | undefined {
    for (const key of keys) {
      const outcome = this.#outcomes.get(key)
      if (outcome?.kind === 'admitted') return outcome.lease
    }
    return undefined
  }

  /** Returns whether it meets one that is there: each contradiction shows when the later of the two is remembered. */
  #remember({ lease: { key, subnets }, claims }: Candidate): boolean {
    let meets = false
    for (const family of FAMILIES) {
      const subnet = subnets[family]
      if (subnet === undefined) continue
      const others = this.#subnets.overlapping(subnet)
      meets ||= others.length > 0
      const same = others.length > 0 ? this.#subnets.get(subnet) : undefined
      if (same === undefined) this.#subnets.set(subnet, [key])
      else same.push(key)
    }
    for (const claim of claims) {
      this.#claims.add(claim, key)
      meets ||= this.#claims.isContested(claim)
    }
    return meets
  }

  #forget(key: LeaseKey): void {
    const candidate = this.#candidate(key)
    if (candidate === undefined) return
    this.#beaten.delete(key)
    for (const subnet of Object.values(candidate.lease.subnets)) {
      const keys = this.#subnets.get(subnet)?.filter((other) => other !== key) ?? []
      if (keys.length === 0) this.#subnets.delete(subnet)
      else this.#subnets.set(subnet, keys)
    }
    for (const claim of candidate.claims) this.#claims.delete(claim, key)
  }

  /** What a lease claims is a function of it, and not kept. */
  #candidate(key: LeaseKey): Candidate | undefined {
    const outcome = this.#outcomes.get(key)
    const lease = outcome?.kind === 'admitted' ? outcome.lease : this.#beaten.get(key)
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
    for (const claim of claims) {
      const name = textOf(claim)
      if (looked.has(name)) continue
      looked.add(name)
      for (const key of this.#claims.contestants(claim)) rivals.add(key)
    }
    rivals.delete(lease.key)
    return [...rivals]
  }

  /** Keeps the outcome, and notes it where it is another one. */
  #record(key: LeaseKey, after: Outcome | undefined, changes: OutcomeChange[]): void {
    const before = this.#outcomes.get(key)
    if (isSame(before, after)) return
    changes.push({ key, before, after })
    if (after === undefined) this.#outcomes.delete(key)
    else this.#outcomes.set(key, after)
  }
}

function* pick(leases: ReadonlyMap<LeaseKey, Lease>, keys: Iterable<LeaseKey>): Generator<Lease> {
  for (const key of keys) {
    const lease = leases.get(key)
    if (lease !== undefined) yield lease
  }
}

/** Of a candidate. @param reason Why it is refused; undefined: it is not. */
function outcomeOf(lease: Lease, reason?: string): Outcome {
  return reason === undefined ? { kind: 'admitted', lease } : { kind: 'refused', reason }
}

function isSame(a: Outcome | undefined, b: Outcome | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  if (a.kind === 'admitted' && b.kind === 'admitted') return a.lease === b.lease
  return a.kind === b.kind && ('reason' in a && a.reason) === ('reason' in b && b.reason)
}

/**
 * From the oldest on, each is admitted that contradicts none admitted before it; of the others the reason. Rivals must all
 * be given.
 */
function* decide(
  candidates: readonly Candidate[],
): Generator<{ readonly lease: Lease; readonly reason: string | undefined }> {
  const subnets = new PrefixMap<LeaseKey>()
  const holders = new Map<string, Claimant>()
  for (const candidate of candidates.toSorted((a, b) => byAge(a.lease, b.lease))) {
    const { lease, claims } = candidate
    const reason = contradiction(candidate, subnets, holders)
    yield { lease, reason }
    if (reason !== undefined) continue
    for (const subnet of Object.values(lease.subnets)) subnets.set(subnet, lease.key)
    for (const claim of claims) {
      const name = textOf(claim)
      if (!holders.has(name)) holders.set(name, { value: claim.value, key: lease.key })
    }
  }
}

/** The oldest first; of one age always in the same order. */
export function byAge(a: Lease, b: Lease): number {
  return a.created - b.created || (a.key < b.key ? -1 : 1)
}

function contradiction(
  { lease, claims }: Candidate,
  subnets: PrefixMap<LeaseKey>,
  holders: ReadonlyMap<string, Claimant | undefined>,
): string | undefined {
  for (const subnet of Object.values(lease.subnets)) {
    // Of several always the same, whatever the order in which they came.
    const [older] = subnets.overlapping(subnet).sort()
    if (older !== undefined) return `${subnet} overlaps the older lease ${older}`
  }
  // As a rule there is nobody, and no name is put together.
  for (const claim of holders.size === 0 ? [] : claims) {
    const name = textOf(claim)
    const { value } = claim
    const holder = holders.get(name)
    if (holder === undefined || holder.value === value) continue
    return `${name} at ${value} is that of the older lease ${holder.key} at ${holder.value}`
  }
  return undefined
}
