/** A lease: one host's subnet and what its peers must know to reach it. */

import type { Family, Ip } from '../address/ip.ts'
import type { Prefix } from '../address/prefix.ts'

/** One value for each enabled family. */
export type PerFamily<T> = Readonly<Partial<Record<Family, T>>>

declare const leaseKeyBrand: unique symbol

/** The name of a lease in flannel's form: `10.5.34.0-24`, dual-stack `10.5.34.0-24&fd80:0:0:48::-64`. */
export type LeaseKey = string & { readonly [leaseKeyBrand]: true }

/** What a host publishes about itself (flannel's LeaseAttrs). */
export interface LeaseAttributes {
  readonly publicIps: PerFamily<Ip>
  /** `vxlan`, `host-gw` …; empty where flannel omits it (udp, alloc, a reservation nobody has claimed). */
  readonly backendType: string
  /** The JSON value of BackendData (inet) and BackendV6Data (inet6), as it came. */
  readonly backendData: PerFamily<unknown>
}

export interface Lease extends LeaseAttributes {
  readonly key: LeaseKey
  readonly subnets: PerFamily<Prefix>
  /** Milliseconds since the epoch; undefined for a reservation, which never expires. */
  readonly expires: number | undefined
  /** Order of creation in the registry: of two leases that contradict each other, the older one holds. */
  readonly created: number
}
