/**
 * The registry that the hosts of one network share. Three real implementations stand behind it. Those in which hosts
 * choose their subnets pass `test/registry-contract.ts`.
 */

import type { Ip, PerFamily } from '../address/ip.ts'
import type { Prefix } from '../address/prefix.ts'
import type { NetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseAttributes, LeaseKey } from './lease.ts'

export interface LeaseRequest {
  readonly config: NetworkConfig
  readonly attributes: LeaseAttributes
  /** The subnets held before (subnet.env), taken again when nobody else holds them. */
  readonly previous: PerFamily<Prefix>
  /** The lease that this host holds, under a public IP that may be another by now: it is kept when it fits. */
  readonly current?: Lease | undefined
}

/** Everything under the network at one moment. A snapshot is always complete: what is absent from it is gone. */
export interface LeaseSnapshot {
  readonly kind: 'snapshot'
  /** The network config as the operator wrote it; undefined when there is none. */
  readonly config: string | undefined
  /** The registry's own map: it changes with the next event, so that an event costs what changed and no copy. */
  readonly leases: ReadonlyMap<LeaseKey, Lease>
  /** The keys that differ from the snapshot before; undefined: there was none before, or assume all of them. */
  readonly changed: ReadonlySet<LeaseKey> | undefined
  /** Of the changed, those that are gone, as they were. */
  readonly gone: ReadonlyMap<LeaseKey, Lease>
  /** Entries that could not be read as leases, with the reason: the others go on. */
  readonly malformed: ReadonlyMap<string, string>
  /** Changes when the store was replaced (deleted, restored): absence then proves nothing for a while. */
  readonly incarnation: string
}

/** The registry cannot be read, or renewed in, now. Nothing follows from this for the leases known so far. */
export interface RegistryUnavailable {
  readonly kind: 'unavailable'
  readonly reason: string
}

export type RegistryEvent = LeaseSnapshot | RegistryUnavailable

export interface LeaseRegistry {
  /** For logs: `sqlite:/var/lib/tweed/registry.db`. */
  readonly name: string
  /** Somebody else gives each host its subnets (Kubernetes does): of a range in the config, only the network counts. */
  readonly givesSubnets?: true
  /** Asks for what `readConfig` and `acquire` will need if they are called soon: it comes while the agent gets ready. */
  prepare?(signal: AbortSignal): void
  /** The network config text, undefined when there is none yet. @throws {RegistryError} */
  readConfig(signal: AbortSignal): Promise<string | undefined>
  /** Public IPs that the registry has for this host: they go before the agent's flags. @throws {RegistryError} */
  publicIps?(signal: AbortSignal): Promise<PerFamily<Ip>>
  /**
   * Takes a subnet by flannel's rules: the lease of this public IP, the previous subnet, a random free one.
   * Atomic: two hosts never hold overlapping subnets. @throws {RegistryError}
   */
  acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease>
  /** Complete snapshots: the first at once, then one for each change. Ends with the signal, never with an error. */
  watch(signal: AbortSignal): AsyncIterable<RegistryEvent>
  /**
   * Renews the lease until the signal. `lost` is final: the lease expired, was removed or is somebody else's.
   * A renewal that failed is not a loss: it is tried again until the lease has expired.
   * @param programmed Resolves when the data plane is there; false: it will not be. Kubernetes is told of it.
   */
  hold(lease: Lease, signal: AbortSignal, programmed?: Promise<boolean>): Promise<'lost' | 'released'>
  close(): Promise<void>
}

/** What an operator does to a registry (`tweed config put`, `tweed leases`). Kubernetes refuses all of it: `invalid`. */
export interface RegistryAdmin {
  putConfig(text: string): Promise<void>
  /**
   * A lease that never expires, for the host with these public IPs, of one family or of both.
   * @throws {RegistryError} when it overlaps one.
   */
  reserve(subnets: PerFamily<Prefix>, publicIps: PerFamily<Ip>): Promise<Lease>
  /** Removes the lease of that subnet, which may be one of two. @throws {RegistryError} when there is none. */
  release(subnet: Prefix): Promise<void>
}

export type RegistryErrorCode = 'unavailable' | 'out-of-subnets' | 'conflict' | 'not-found' | 'invalid'

/** `unavailable` may pass by itself; the other codes are answers. */
export class RegistryError extends Error {
  override readonly name = 'RegistryError'
  readonly code: RegistryErrorCode

  constructor(code: RegistryErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** One call to the store behind a registry, as metrics count it. */
export interface RegistryCall {
  /** `write` of the embedded registry; of etcd the method: `Range`, `Txn` …; of Kubernetes the verb: `list`, `patch` … */
  readonly operation: string
  readonly milliseconds: number
  readonly failed: boolean
}

export type RegistryObserver = (call: RegistryCall) => void

/** Does the call, and tells the observer how long it took. */
export async function observed<T>(
  observe: RegistryObserver | undefined,
  operation: string,
  work: () => Promise<T>,
  now: () => number,
): Promise<T> {
  const start = now()
  let failed = true
  try {
    const result = await work()
    failed = false
    return result
  } finally {
    observe?.({ operation, milliseconds: now() - start, failed })
  }
}

/** Where a registry is. */
export type RegistryAddress =
  | { readonly kind: 'sqlite'; readonly path: string }
  | { readonly kind: 'etcd'; readonly endpoints: readonly string[] }
  | { readonly kind: 'kubernetes' }

/** `sqlite:PATH`, `etcd:URL,URL`, or `kubernetes:`, whose server is found elsewhere. @throws {RegistryError} */
export function parseRegistryAddress(text: string): RegistryAddress {
  const colon = text.indexOf(':')
  const kind = text.slice(0, colon)
  const rest = text.slice(colon + 1)
  if (kind === 'sqlite' && rest !== '') return { kind, path: rest }
  if (kind === 'etcd' && rest !== '') return { kind, endpoints: rest.split(',') }
  if (kind === 'kubernetes' && rest === '') return { kind }
  throw new RegistryError(
    'invalid',
    `${JSON.stringify(text)} is not a registry: write sqlite:PATH, etcd:http://HOST:2379 or kubernetes:`,
  )
}
