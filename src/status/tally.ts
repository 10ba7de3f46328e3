/** Counts by name, which `/metrics` shows; pure. */

import type { RegistryCall } from '../lease/registry.ts'

export interface CallCount {
  readonly operation: string
  calls: number
  failures: number
  milliseconds: number
}

/** How often the registry was called, and how long it took. */
export class RegistryCalls {
  readonly #counts = new Map<string, CallCount>()

  get counts(): readonly CallCount[] {
    return [...this.#counts.values()]
  }

  add({ operation, milliseconds, failed }: RegistryCall): void {
    const count = this.#counts.get(operation) ?? { operation, calls: 0, failures: 0, milliseconds: 0 }
    count.calls++
    count.milliseconds += milliseconds
    if (failed) count.failures++
    this.#counts.set(operation, count)
  }
}
