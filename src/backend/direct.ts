/** Peers that need no tunnel, because they are on a link of this host (flannel's DirectRouting). */

import type { Ip } from '../address/ip.ts'
import type { Prefix } from '../address/prefix.ts'
import { PrefixMap } from '../address/prefix-map.ts'
import type { Route } from '../state.ts'
import type { HostFacts } from './backend.ts'
import { routeTo } from './routes.ts'

export class DirectPeers {
  readonly #direct = new PrefixMap<boolean>()
  readonly #interface: string

  /** @param host Undefined: there are none. */
  constructor(host: HostFacts | undefined) {
    this.#interface = host?.external.name ?? ''
    for (const { prefix, direct } of host?.underlay ?? []) this.#direct.set(prefix, direct)
  }

  /** The route over the underlay; undefined for a peer that is not reached without a gateway. */
  routeTo(subnet: Prefix, publicIp: Ip): Route | undefined {
    return this.#direct.longest(publicIp) === true ? routeTo(subnet, this.#interface, publicIp) : undefined
  }
}
