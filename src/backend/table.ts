/** All backends, by the `Type` of the network config. */

import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import { alloc } from './alloc.ts'
import type { Backend, BackendFactory, BackendOpener, HostFacts } from './backend.ts'
import { extension } from './extension-commands.ts'
import { hostGw } from './host-gw.ts'
import { ipip } from './ipip.ts'
import { ipsec } from './ipsec-charon.ts'
import { vxlan } from './vxlan.ts'
import { checkWireguard } from './wireguard.ts'
import { openWireguard } from './wireguard-key.ts'

const BACKENDS: ReadonlyMap<string, BackendFactory | BackendOpener> = new Map<
  string,
  BackendFactory | BackendOpener
>([
  ['vxlan', vxlan],
  ['host-gw', hostGw],
  ['ipip', ipip],
  ['wireguard', { check: checkWireguard, open: openWireguard }],
  ['ipsec', ipsec],
  ['extension', extension],
  ['alloc', alloc],
])

/** Whether the host can use the config, without doing anything. @throws {ConfigError} for an unknown type, or settings. */
export function checkBackend(config: NetworkConfig, host: HostFacts): void {
  const entry = find(config)
  if (typeof entry === 'function') entry(config, host)
  else entry.check(config, host)
}

/** Whether the plan depends on the routes of the underlay. A backend that is opened has none that does. */
export function needsUnderlay(config: NetworkConfig, host: HostFacts): boolean {
  const entry = find(config)
  return typeof entry === 'function' && entry(config, host).needsUnderlay
}

/** @throws {ConfigError} for an unknown type, or settings that the backend cannot use. {@link BackendError} */
export async function openBackend(
  config: NetworkConfig,
  host: HostFacts,
  signal?: AbortSignal,
): Promise<Backend> {
  const entry = find(config)
  return typeof entry === 'function' ? entry(config, host) : await entry.open(config, host, signal)
}

function find({ backend: { type } }: NetworkConfig): BackendFactory | BackendOpener {
  const entry = BACKENDS.get(type)
  if (entry !== undefined) return entry
  throw new ConfigError('Backend.Type', type, `it must be one of: ${[...BACKENDS.keys()].join(', ')}`)
}
