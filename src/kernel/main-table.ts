/** The host's own routes in the main table: which interface leads out, and who is on a link of this host. */

import { type Family, ipFromNumber, isLinkLocal } from '../address/ip.ts'
import {
  type Prefix,
  prefixBase,
  prefixCovers,
  prefixFamily,
  prefixLength,
  prefixOf,
} from '../address/prefix.ts'
import type { Connection } from '../netlink/connection.ts'
import { decodeRoute, decodeRouteProtocol, getRoutes, RTA_VIA } from '../netlink/route.ts'
import { AF_INET, AF_INET6 } from '../netlink/rtnetlink.ts'
import { MAIN_TABLE, PROTOCOL } from '../state.ts'

export interface MainRoute {
  /** Length 0: a default route. */
  readonly prefix: Prefix
  /** Index of the link; undefined for a blackhole, or for several ways at once. */
  readonly oif: number | undefined
  readonly hasGateway: boolean
  readonly metric: number
}

/** Whether addresses are reached over the external interface without a gateway. */
export interface UnderlayRoute {
  readonly prefix: Prefix
  readonly direct: boolean
}

/** The routes of the families that are not ours. */
export async function readMainTable(
  connection: Connection,
  families: readonly Family[],
): Promise<MainRoute[]> {
  const routes: MainRoute[] = []
  for (const family of families) {
    const request = getRoutes(family === 'inet' ? AF_INET : AF_INET6, { table: MAIN_TABLE })
    await connection.dump(request, ({ payload }) => {
      // There may be tens of thousands.
      if (decodeRouteProtocol(payload) === PROTOCOL) return
      const route = decodeRoute(payload)
      const { destination = UNSPECIFIED[family], gateway, oif, priority = 0, unknown } = route
      if (route.table !== MAIN_TABLE) return
      const hasGateway = gateway !== undefined || unknown.some(({ type }) => type === RTA_VIA)
      const prefix = prefixOf(destination, route.destinationLength)
      routes.push({ prefix, oif, hasGateway, metric: priority })
    })
  }
  return routes
}

const UNSPECIFIED = { inet: ipFromNumber(0n, 'inet'), inet6: ipFromNumber(0n, 'inet6') }

/** The index of the link of the default route with the lowest metric. */
export function defaultLink(routes: readonly MainRoute[], family: Family): number | undefined {
  let best: MainRoute | undefined
  for (const route of routes) {
    const { prefix, oif, metric } = route
    if (prefixLength(prefix) > 0 || prefixFamily(prefix) !== family || oif === undefined) continue
    if (best === undefined || metric < best.metric) best = route
  }
  return best?.oif
}

/**
 * What decides who is on a link of this host: the routes that lead there, and those that take a part out of them. Others
 * change nothing, so they are left out: containers' bridges come and go.
 *
 * @param external Index of the external interface. @param links Indexes of our own links: what leads there is no underlay.
 */
export function underlayRoutes(
  routes: readonly MainRoute[],
  external: number,
  links: ReadonlySet<number>,
): UnderlayRoute[] {
  const best = new Map<Prefix, MainRoute>()
  for (const route of routes) {
    const { prefix, oif, metric } = route
    if ((oif !== undefined && links.has(oif)) || isLinkLocal(prefixBase(prefix))) continue
    if (metric < (best.get(prefix)?.metric ?? Number.POSITIVE_INFINITY)) best.set(prefix, route)
  }
  const isDirect = ({ oif, hasGateway }: MainRoute): boolean => oif === external && !hasGateway
  const direct = [...best.values()].filter(isDirect).map(({ prefix }) => prefix)
  return [...best.values()]
    .map((route) => ({ prefix: route.prefix, direct: isDirect(route) }))
    .filter((route) => route.direct || direct.some((prefix) => prefixCovers(prefix, route.prefix)))
    .sort((a, b) => (a.prefix < b.prefix ? -1 : 1))
}
