/**
 * What a backend is: pure functions from leases and host facts to desired kernel state.
 *
 * To add one: write `<type>.ts` beside this file, add its line to `table.ts`, and its kernel tests under test/kernel.
 */

import { FAMILIES, type Family, type Ip, type PerFamily } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import type { Prefix } from '../address/prefix.ts'
import type { NetworkConfig } from '../config/network-config.ts'
import type { Claim, Lease, LeaseKey } from '../lease/lease.ts'
import type { Scope, Share } from '../state.ts'

/** What a plan needs to know of this host, read once by kernel/host.ts. */
export interface HostFacts {
  /** The interface that carries the outer packets. */
  readonly external: {
    readonly name: string
    readonly index: number
    readonly mtu: number
    /** Source address of outer packets: the public IP where it is local, else the interface's own (behind NAT). */
    readonly addresses: PerFamily<Ip>
  }
  /** What peers send to. */
  readonly publicIps: PerFamily<Ip>
  /** The links that exist, by name: one that is adopted keeps its MAC, one of an earlier config is removed. */
  readonly links: ReadonlyMap<string, LinkFacts>
  /**
   * Of the main table's routes that do not lead over our links, those that decide which peers are on a link of this host.
   * Empty unless the backend asks for them (`needsUnderlay`).
   */
  readonly underlay: readonly UnderlayRoute[]
}

export interface UnderlayRoute {
  readonly prefix: Prefix
  /** Whether the addresses in it are reached over the external interface without a gateway. */
  readonly direct: boolean
}

export interface LinkFacts {
  /** Undefined for a link that is not Ethernet. */
  readonly mac: Mac | undefined
  readonly addresses: readonly Ip[]
}

/** Those that have a value. */
export function familiesOf(values: PerFamily<unknown>): Family[] {
  return FAMILIES.filter((family) => values[family] !== undefined)
}

/** As they are called in the network config: `EnableIPv6`. */
export const FAMILY_NAMES: Readonly<Record<Family, string>> = { inet: 'IPv4', inet6: 'IPv6' }

/** A share that needs nothing. */
export const NOTHING: Share = { entries: [], answers: [] }

/** A backend for one network on one host. */
export interface Backend {
  /** As in the network config: `vxlan`. */
  readonly type: string
  /** BackendType of leases: the same, or empty where flannel writes none. A peer's lease of another type is not used. */
  readonly leaseType: string
  /** Of our VTEPs, where the backend has such. */
  readonly mac: PerFamily<Mac>
  /** For workloads (FLANNEL_MTU). */
  readonly mtu: number
  readonly scope: Scope
  /** Whether the plan depends on `HostFacts.underlay`: when that changes, the backend is made anew. */
  readonly needsUnderlay: boolean
  /** BackendData and BackendV6Data of our own lease. */
  readonly advertised: PerFamily<unknown>
  /** Whether a peer's data can be used, and what it claims for itself alone. */
  judge(lease: Lease): Verdict
  /** The share of our own lease. */
  own(lease: Lease): Share
  /** The share of a peer's lease that was judged good. */
  peer(lease: Lease): Share
  /** What is done beside the kernel's tables; undefined: nothing is. */
  readonly companion?: Companion
}

/** The part of a backend that acts by itself: it runs commands, or speaks to a daemon. */
export interface Companion {
  /** Our lease was acquired; no peer is known yet. @throws {BackendError} */
  started(lease: Lease, signal?: AbortSignal): Promise<void>
  /** Peers' leases that are used no more, and those that are now. Returns at once. */
  exchange(removed: readonly Lease[], added: readonly Lease[]): void
  /** Until the signal: does what was exchanged, in its order, and tells each step. What failed is tried again. */
  run(signal: AbortSignal): AsyncIterable<CompanionStep>
  /** What failed last and is to be tried again: why, by lease. */
  readonly failures: ReadonlyMap<LeaseKey, string>
  /**
   * The agent ends, or joins again. A second call does nothing.
   *
   * @param keep Whether what peers need shall stay: the same backend follows, now or when the agent comes back.
   * @throws {BackendError}
   */
  stopped(keep: boolean): Promise<void>
}

export interface CompanionStep {
  /** `command`, as in metrics. */
  readonly kind: string
  readonly verb: 'add' | 'delete'
  readonly lease: Lease
  /** Why it failed; empty when it did not. */
  readonly error: string
}

/** `claims` are exclusive: two leases that claim the same name of a kind with different values contradict each other. */
export type Verdict = { readonly claims: readonly Claim[] } | { readonly refused: string }

/** A backend that is made of the config and the host's facts alone. */
export type BackendFactory = (config: NetworkConfig, host: HostFacts) => Backend

/** A backend that needs something of this machine before it can be made: a file, a program. */
export interface BackendOpener {
  /** Pure: whether the config can be used. @throws {ConfigError} */
  check(config: NetworkConfig, host: HostFacts): void
  /** Checks, then does what is needed. @throws {ConfigError} {@link BackendError} */
  open(config: NetworkConfig, host: HostFacts, signal?: AbortSignal): Promise<Backend>
}

/** What a backend needs of this machine cannot be had: an operator must mend it, and meanwhile it is tried again. */
export class BackendError extends Error {
  override readonly name = 'BackendError'
}
