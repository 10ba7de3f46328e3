/**
 * The agent: joins a network and follows it. When what it joined with has changed (the network config, the external
 * interface) it joins again, with its lease; the kernel is not touched in between, and the next turn does what differs.
 * Stopping leaves the data plane as it is.
 */

import { Reconciler } from '../kernel/reconcile.ts'
import { Grace } from '../lease/grace.ts'
import type { Lease } from '../lease/lease.ts'
import type { Scope } from '../state.ts'
import type { Journal, Membership } from '../status/journal.ts'
import { type AgentOptions, joinNetwork, leave } from './join.ts'
import { LeaseLost, Network } from './network.ts'

/** Runs until the signal. @throws {LeaseLost} {@link HostError} {@link RegistryError} what only an operator can mend. */
export async function runAgent(options: AgentOptions, journal: Journal, signal: AbortSignal): Promise<void> {
  const grace = new Grace(options.grace)
  let joined: Membership | undefined
  try {
    while (!signal.aborted) {
      const lease = joined?.lease
      const membership = await joinNetwork(options, joined, journal, signal)
      if (membership === undefined) return
      joined = membership
      await follow(options, membership, lease, grace, journal, signal)
    }
  } finally {
    if (joined !== undefined) await leave(joined.backend, true, journal)
  }
}

/** @param previous The lease that the agent had before it joined this time. */
async function follow(
  options: AgentOptions,
  membership: Membership,
  previous: Lease | undefined,
  grace: Grace,
  journal: Journal,
  signal: AbortSignal,
): Promise<void> {
  const { backend, lease } = membership
  try {
    if (previous !== undefined && lease.key !== previous.key) {
      throw new LeaseLost(previous, `; the registry gave ${lease.key}`)
    }
    await new Network(options, membership, grace, journal, signal).follow()
  } catch (error) {
    if (error instanceof LeaseLost) {
      await leave(backend, false, journal)
      await withdraw(backend.scope)
    }
    throw error
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
