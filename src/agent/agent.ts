/**
 * The agent: joins a network and follows it. When what it joined with has changed (the network config, the external
 * interface) it joins again, with its lease; the kernel is not touched in between, and the next turn does what differs.
 * Stopping leaves the data plane as it is.
 */

import { Reconciler } from '../kernel/reconcile.ts'
import { Grace } from '../lease/grace.ts'
import type { Lease } from '../lease/lease.ts'
import type { Scope } from '../state.ts'
import type { Journal } from '../status/journal.ts'
import { type AgentOptions, joinNetwork } from './join.ts'
import { LeaseLost, Network } from './network.ts'

/** Runs until the signal. @throws {LeaseLost} {@link HostError} {@link RegistryError} what only an operator can mend. */
export async function runAgent(options: AgentOptions, journal: Journal, signal: AbortSignal): Promise<void> {
  const grace = new Grace(options.grace)
  let lease: Lease | undefined
  while (!signal.aborted) {
    const membership = await joinNetwork(options, lease, journal, signal)
    if (membership === undefined) return
    const { backend } = membership
    try {
      if (lease !== undefined && membership.lease.key !== lease.key) {
        throw new LeaseLost(lease, `; the registry gave ${membership.lease.key}`)
      }
      await new Network(options, membership, grace, journal, signal).follow()
    } catch (error) {
      if (error instanceof LeaseLost) await withdraw(backend.scope)
      throw error
    }
    lease = membership.lease
  }
}

/** Takes everything of ours out of the kernel: a turn whose plan is empty. */
async function withdraw(scope: Scope): Promise<void> {
  const reconciler = await Reconciler.open({ scope })
  try {
    await reconciler.turn()
  } finally {
    reconciler.close()
  }
}
