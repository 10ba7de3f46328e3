/** The routes of plans. */

import type { Ip } from '../address/ip.ts'
import { type Prefix, prefixFamily } from '../address/prefix.ts'
import { DEFAULT_METRIC, MAIN_TABLE, PROTOCOL, type Route } from '../state.ts'

export function routeTo(destination: Prefix, link: string, gateway: Ip | undefined): Route {
  return {
    kind: 'route',
    destination,
    table: MAIN_TABLE,
    metric: DEFAULT_METRIC[prefixFamily(destination)],
    link,
    gateway,
    nexthop: undefined,
    protocol: PROTOCOL,
  }
}
