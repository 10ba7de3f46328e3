/** The links that flannel's backends make, and those of them that an earlier config left behind. */

import { type Prefix, prefixContains } from '../address/prefix.ts'
import type { HostFacts } from './backend.ts'

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
