/** All backends, by the `Type` of the network config. */

import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import { alloc } from './alloc.ts'
import type { Backend, BackendFactory, HostFacts } from './backend.ts'
import { hostGw } from './host-gw.ts'
import { ipip } from './ipip.ts'
import { vxlan } from './vxlan.ts'

const BACKENDS = {
  vxlan,
  'host-gw': hostGw,
  ipip,
  alloc,
} as const satisfies Record<string, BackendFactory>

/** @throws {ConfigError} for an unknown type, or settings that the backend cannot use. */
export function createBackend(config: NetworkConfig, host: HostFacts): Backend {
  const { type } = config.backend
  if (!Object.hasOwn(BACKENDS, type)) {
    throw new ConfigError('Backend.Type', type, `it must be one of: ${Object.keys(BACKENDS).join(', ')}`)
  }
  return BACKENDS[type as keyof typeof BACKENDS](config, host)
}
