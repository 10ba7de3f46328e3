/** What backends ask of the host: addresses to send from, and the links that an earlier config left behind. */

import type { Family, Ip } from '../address/ip.ts'
import { type Prefix, prefixContains } from '../address/prefix.ts'
import { ConfigError } from '../config/network-config.ts'
import { FAMILY_NAMES, type HostFacts } from './backend.ts'

/** @throws {ConfigError} when the external interface does not have the family. */
export function requireAddress(
  family: Family,
  host: HostFacts,
  backend: string,
): { readonly local: Ip; readonly publicIp: Ip } {
  const local = host.external.addresses[family]
  const publicIp = host.publicIps[family]
  if (local !== undefined && publicIp !== undefined) return { local, publicIp }
  const name = FAMILY_NAMES[family]
  const problem = `${host.external.name} must have an ${name} address for ${backend}`
  throw new ConfigError(`Enable${name}`, true, problem)
}

/** flannel's names: `flannel.1`, `flannel-v6.1`, `flannel.ipip`, `flannel-wg`, `flannel-wg-v6`. */
const NAME = /^flannel(?:(?:-v6)?\.[0-9]+|\.ipip|-wg(?:-v6)?)$/

/** The links of a scope: those that are desired, and those of another backend or VNI with an address in our networks. */
export function scopeLinks(
  host: HostFacts,
  desired: readonly string[],
  networks: readonly Prefix[],
): Set<string> {
  const links = new Set(desired)
  for (const [name, { addresses }] of host.links) {
    if (NAME.test(name) && addresses.some((ip) => networks.some((network) => prefixContains(network, ip)))) {
      links.add(name)
    }
  }
  return links
}
