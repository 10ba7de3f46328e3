/** Joining a network: its config, the facts of this host, a lease. What is missing is waited for. */

import { setTimeout as sleep } from 'node:timers/promises'
import { type Backend, BackendError, familiesOf, type HostFacts } from '../backend/backend.ts'
import { checkBackend, needsUnderlay, openBackend } from '../backend/table.ts'
import { ConfigError, type NetworkConfig, parseNetworkConfig } from '../config/network-config.ts'
import { readSubnetFile } from '../config/subnet-file.ts'
import { readInterfaces } from '../kernel/host.ts'
import { HostError, type InterfaceChoice } from '../kernel/selection.ts'
import { type LeaseRegistry, RegistryError } from '../lease/registry.ts'
import type { Journal, Membership } from '../status/journal.ts'

export interface AgentOptions {
  readonly registry: LeaseRegistry
  readonly interface: InterfaceChoice
  readonly subnetFile: string
  readonly firewall: FirewallOptions
  /** Whether what goes to an address of our own subnet that no container has ends here. */
  readonly blackhole: boolean
  /** How long leases are kept that a replaced registry lacks. Milliseconds. */
  readonly grace: number
}

/** Which rules the packet filter shall have. */
export interface FirewallOptions {
  readonly masquerade: boolean
  readonly forward: boolean
  readonly randomFully: boolean
  /** Between two looks at the rules. Milliseconds. */
  readonly interval: number
}

/** How often what is not there yet is looked for. Milliseconds. */
const RETRY_INTERVAL = 1000

/**
 * Undefined when the signal comes first.
 * @param previous What this agent had joined: its lease is kept, also under another public IP; its backend is stopped
 *   when the next one can be opened.
 * @throws {HostError} {@link RegistryError} what only an operator can mend.
 */
export async function joinNetwork(
  options: AgentOptions,
  previous: Membership | undefined,
  journal: Journal,
  signal: AbortSignal,
): Promise<Membership | undefined> {
  const { registry } = options
  while (!signal.aborted) {
    try {
      const text = await registry.readConfig(signal)
      if (text !== undefined) return await acquire(options, text, previous, journal, signal)
      journal.waiting(
        `there is no network config in ${registry.name} yet: write one with \`tweed config put\``,
      )
    } catch (error) {
      if (signal.aborted) return undefined
      const passing =
        error instanceof ConfigError ||
        error instanceof BackendError ||
        (error instanceof RegistryError && error.code === 'unavailable') ||
        (error instanceof HostError && previous !== undefined)
      if (!passing) throw error
      journal.waiting(error.message)
    }
    await pause(signal)
  }
  return undefined
}

/** Waits before something is tried again, at most until the signal. */
export async function pause(signal: AbortSignal): Promise<void> {
  await sleep(RETRY_INTERVAL, undefined, { signal }).catch(() => undefined)
}

/** Ends what the backend does beside the kernel's tables: `Companion.stopped`. What cannot be ended is said, and left. */
export async function leave(backend: Backend, keep: boolean, journal: Journal): Promise<void> {
  try {
    await backend.companion?.stopped(keep)
  } catch (error) {
    if (!(error instanceof BackendError)) throw error
    journal.notStopped(error.message)
  }
}

/** Of the host's routes, only what the backend asks for: with many leases there are many. @throws {ConfigError} */
async function readHost(choice: InterfaceChoice, config: NetworkConfig): Promise<HostFacts> {
  const question = { choice, families: familiesOf(config.ranges), underlay: false }
  const host = await readInterfaces(question)
  checkBackend(config, host)
  return needsUnderlay(config, host) ? await readInterfaces({ ...question, underlay: true }) : host
}

async function acquire(
  options: AgentOptions,
  configText: string,
  left: Membership | undefined,
  journal: Journal,
  signal: AbortSignal,
): Promise<Membership> {
  const { registry } = options
  const config = parseNetworkConfig(configText, registry.givesSubnets)
  journal.foundConfig(config)
  const wantedIps = { ...options.interface.publicIps, ...(await registry.publicIps?.(signal)) }
  const host = await readHost({ ...options.interface, publicIps: wantedIps }, config)
  if (left !== undefined) await leave(left.backend, left.configText === configText, journal)
  const backend = await openBackend(config, host, signal)
  try {
    const previous = await readSubnetFile(options.subnetFile)
    const { leaseType: backendType, advertised: backendData } = backend
    const attributes = { publicIps: host.publicIps, backendType, backendData }
    const request = { config, attributes, previous, current: left?.lease }
    const lease = await registry.acquire(request, signal)
    await backend.companion?.started(lease, signal)
    const membership = { config, configText, wantedIps, host, backend, lease }
    journal.joined(membership)
    return membership
  } catch (error) {
    await leave(backend, true, journal)
    throw error
  }
}
