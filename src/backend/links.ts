/** What backends ask of the host: addresses to send from, and the links that an earlier config left behind. */

import { FAMILIES, type Family, type Ip } from '../address/ip.ts'
import { type Prefix, prefixContains } from '../address/prefix.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import type { Scope } from '../state.ts'
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

/** For a backend of IPv4 alone. @throws {ConfigError} */
export function requireIpv4Alone({ ranges }: NetworkConfig, backend: string): void {
  const problem = `${backend} carries IPv4 only`
  if (ranges.inet === undefined) throw new ConfigError('EnableIPv4', false, problem)
  if (ranges.inet6 !== undefined) throw new ConfigError('EnableIPv6', true, problem)
}

/** The scope of a plan with these links; nothing on them is answered on demand. */
export function scopeOf(host: HostFacts, { ranges }: NetworkConfig, links: readonly string[] = []): Scope {
  const networks = FAMILIES.flatMap((family) => ranges[family]?.network ?? [])
  return {
    links: scopeLinks(host, links, networks),
    onDemand: new Set(),
    fdbOnDemand: new Set(),
    underlay: host.external.name,
    networks,
  }
}

/** Those that are desired, and those of another backend or VNI with an address in our networks. */
function scopeLinks(host: HostFacts, desired: readonly string[], networks: readonly Prefix[]): Set<string> {
  const links = new Set(desired)
  for (const [name, { addresses }] of host.links) {
    if (NAME.test(name) && addresses.some((ip) => networks.some((network) => prefixContains(network, ip)))) {
      links.add(name)
    }
  }
  return links
}
