/** What a bench is, and which there are. */

import type { Measured } from './measure.ts'
import type { Programs } from './programs.ts'

export interface Options {
  /** How often each candidate is measured in each case. */
  readonly runs: number
  /** Numbers of leases, for the benches that go over them. */
  readonly leases: readonly number[]
  /** Whether it is only to be seen that it works. */
  readonly quick: boolean
  /** Hears what is being done. */
  readonly tell: (line: string) => void
  /** Ends the work: what was built is taken away. */
  readonly signal: AbortSignal
}

export interface Bench {
  readonly name: string
  readonly summary: string
  /** @throws when it could not be carried out, or when what was measured was not right. */
  readonly run: (programs: Programs, options: Options) => Promise<Measured>
}
