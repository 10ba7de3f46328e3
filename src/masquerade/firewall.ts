/**
 * What the two languages of the packet filter have in common: say all the rules that shall hold, and what differs is
 * put right. Start-up, a flush by another program and a changed subnet are all the same turn.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Family } from '../address/ip.ts'
import { type Change, type FilterPlan, type FirewallRules, type PlannedRules, planRules } from './rules.ts'

export interface Failure {
  readonly family: Family
  readonly error: Error
}

/** The families are independent: one that fails leaves the other as wanted. */
export interface Outcome {
  readonly changes: readonly Change[]
  readonly failures: readonly Failure[]
}

export interface Firewall {
  /** Afterwards the rules are exactly these, or the outcome says why not. A second call changes nothing. */
  ensure(rules: FirewallRules): Promise<Outcome>
  /** Afterwards there is none of our rules. Without the programs that could have made them, there is none. */
  remove(): Promise<Outcome>
}

/** What was written does not read back as it was written: it would be written again for ever. */
export class DoesNotHold extends Error {
  override readonly name = 'DoesNotHold'
}

/** The rules of one family, from random ports only where that is supported: it is asked only where it matters. */
export async function planSupported(
  rules: FirewallRules,
  family: Family,
  supportsRandomFully: (planned: PlannedRules) => Promise<boolean>,
): Promise<PlannedRules> {
  const planned = planRules(rules, family)
  const isRandom = planned.masquerade.some(({ verdict }) => verdict === 'masquerade fully-random')
  if (!isRandom || (await supportsRandomFully(planned))) return planned
  return planRules({ ...rules, randomFully: false }, family)
}

/** Other programs write, too: what they change between our reading and our writing is read and planned again. */
const MAX_ROUNDS = 3

/** Reads and writes until nothing differs. @throws {CommandError} {@link DoesNotHold} */
export async function bring(
  read: () => Promise<FilterPlan>,
  write: (script: string) => Promise<void>,
): Promise<readonly Change[]> {
  const done: Change[] = []
  let written = ''
  let problem: Error | undefined
  for (let round = 0; ; round++) {
    const { script, changes } = await read()
    if (script === '') return done
    if (script === written || round === MAX_ROUNDS) throw problem ?? new DoesNotHold(describe(changes))
    written = script
    try {
      await write(script)
      problem = undefined
      done.push(...changes)
    } catch (error) {
      problem = error as Error
    }
  }
}

function describe(changes: readonly Change[]): string {
  const chains = changes.map(({ chain, why }) => `${chain}: ${why}`).join('; ')
  return `what was written does not hold: ${chains}`
}

/** One turn of the keeper. */
export interface FirewallReport extends Outcome {
  /** Of the changes, those that put back what somebody else had changed. */
  readonly repaired: readonly Change[]
  /** Milliseconds. */
  readonly duration: number
}

export interface KeepOptions {
  readonly firewall: Firewall
  readonly rules: FirewallRules
  /** What else may hold rules of ours (the other mode's). They go when the new rules stand, so that there is no gap. */
  readonly leftovers: readonly Firewall[]
  /** Milliseconds. */
  readonly interval?: number
}

/** Nothing tells of a change in legacy iptables, so the rules are read this often, as flannel does. Milliseconds. */
const RESYNC_INTERVAL = 5000

/** Keeps the rules as wanted until the signal, and leaves them in place. */
export async function* keep(options: KeepOptions, signal: AbortSignal): AsyncGenerator<FirewallReport, void> {
  const { firewall, rules, interval = RESYNC_INTERVAL } = options
  let leftovers = options.leftovers
  let settled = false
  while (!signal.aborted) {
    const started = performance.now()
    const outcome = await firewall.ensure(rules)
    const repaired = settled ? outcome.changes : []
    settled ||= outcome.failures.length === 0
    const outcomes = [outcome]
    if (settled) {
      const failed: Firewall[] = []
      for (const leftover of leftovers) {
        const removed = await leftover.remove()
        outcomes.push(removed)
        if (removed.failures.length > 0) failed.push(leftover)
      }
      leftovers = failed
    }
    yield { ...joinOutcomes(outcomes), repaired, duration: performance.now() - started }
    await sleep(interval, undefined, { signal }).catch(() => undefined)
  }
}

const FAMILIES = ['inet', 'inet6'] as const satisfies readonly Family[]

/** One outcome of what was done for each family. */
export async function forEachFamily(work: (family: Family) => Promise<readonly Change[]>): Promise<Outcome> {
  const outcomes = await Promise.all(
    FAMILIES.map(async (family): Promise<Outcome> => {
      try {
        return { changes: await work(family), failures: [] }
      } catch (error) {
        return { changes: [], failures: [{ family, error: error as Error }] }
      }
    }),
  )
  return joinOutcomes(outcomes)
}

function joinOutcomes(outcomes: readonly Outcome[]): Outcome {
  return {
    changes: outcomes.flatMap(({ changes }) => changes),
    failures: outcomes.flatMap(({ failures }) => failures),
  }
}
