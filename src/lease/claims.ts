/** Who claims what for himself alone: two that claim one name with different values contradict each other. */

import type { LeaseKey } from './lease.ts'

export interface Claim {
  /** `VtepMAC 02:4c:67:26:1e:a8` */
  readonly name: string
  /** `192.168.1.10` */
  readonly value: string
}

/** As a rule a name has one claimant, and costs one entry. */
export class Claims {
  readonly #alone = new Map<string, { readonly value: string; readonly key: LeaseKey }>()
  /** Names with several claimants, by the value claimed. */
  readonly #shared = new Map<string, Map<string, Set<LeaseKey>>>()

  add({ name, value }: Claim, key: LeaseKey): void {
    const first = this.#alone.get(name)
    let values = this.#shared.get(name)
    if (first === undefined && values === undefined) {
      this.#alone.set(name, { value, key })
      return
    }
    values ??= new Map()
    if (first !== undefined) values.set(first.value, new Set([first.key]))
    this.#alone.delete(name)
    this.#shared.set(name, values.set(value, (values.get(value) ?? new Set()).add(key)))
  }

  delete({ name, value }: Claim, key: LeaseKey): void {
    if (this.#alone.get(name)?.key === key) this.#alone.delete(name)
    const values = this.#shared.get(name)
    const keys = values?.get(value)
    keys?.delete(key)
    if (keys?.size === 0) values?.delete(value)
    if (values?.size === 0) this.#shared.delete(name)
  }

  /** Whether those who claim the name do not all claim the same value. */
  isContested(name: string): boolean {
    return (this.#shared.get(name)?.size ?? 0) > 1
  }

  /** Everybody who claims a contested name. */
  *contestants(name: string): Generator<LeaseKey> {
    if (!this.isContested(name)) return
    for (const keys of this.#shared.get(name)?.values() ?? []) yield* keys
  }
}
