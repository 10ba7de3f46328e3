/** Who claims what for himself alone: two that claim one name with different values contradict each other. */

import type { Claim, LeaseKey } from './lease.ts'

/** Who claims a name, with which value. */
export interface Claimant {
  readonly value: string
  readonly key: LeaseKey
}

/** As a rule a name has one claimant, and costs one entry. */
export class Claims {
  /** By kind and name. */
  readonly #alone = new Map<string, Map<string, Claimant>>()
  /** Those with several claimants, by the text of the claim and the value claimed. */
  readonly #shared = new Map<string, Map<string, Set<LeaseKey>>>()

  add(claim: Claim, key: LeaseKey): void {
    const { kind, name, value } = claim
    let alone = this.#alone.get(kind)
    if (alone === undefined) this.#alone.set(kind, (alone = new Map()))
    const first = alone.get(name)
    let values = this.#sharedBy(claim)
    if (first === undefined && values === undefined) {
      alone.set(name, { value, key })
      return
    }
    values ??= new Map()
    if (first !== undefined) values.set(first.value, new Set([first.key]))
    alone.delete(name)
    this.#shared.set(textOf(claim), values.set(value, (values.get(value) ?? new Set()).add(key)))
  }

  delete(claim: Claim, key: LeaseKey): void {
    const alone = this.#alone.get(claim.kind)
    if (alone?.get(claim.name)?.key === key) alone.delete(claim.name)
    const values = this.#sharedBy(claim)
    const keys = values?.get(claim.value)
    keys?.delete(key)
    if (keys?.size === 0) values?.delete(claim.value)
    if (values?.size === 0) this.#shared.delete(textOf(claim))
  }

  /** Whether those who claim the name do not all claim the same value. */
  isContested(claim: Claim): boolean {
    return (this.#sharedBy(claim)?.size ?? 0) > 1
  }

  /** Everybody who claims a contested name. */
  *contestants(claim: Claim): Generator<LeaseKey> {
    if (!this.isContested(claim)) return
    for (const keys of this.#sharedBy(claim)?.values() ?? []) yield* keys
  }

  #sharedBy(claim: Claim): Map<string, Set<LeaseKey>> | undefined {
    return this.#shared.size === 0 ? undefined : this.#shared.get(textOf(claim))
  }
}

/** What is claimed, whatever the value: `VtepMAC 02:4c:67:26:1e:a8`. */
export function textOf({ kind, name }: Claim): string {
  return `${kind} ${name}`
}
