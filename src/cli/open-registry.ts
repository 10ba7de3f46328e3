/** Which registry: one SQLite file, etcd, or Kubernetes. A client library is loaded for the one that is used. */

import type { EtcdOptions } from '../lease/etcd/registry.ts'
import {
  type LeaseRegistry,
  parseRegistryAddress,
  type RegistryAdmin,
  type RegistryObserver,
} from '../lease/registry.ts'

/** As flags say it; an empty text says nothing. */
export interface RegistryChoice {
  /** `sqlite:PATH`, `etcd:URL,URL` or `kubernetes:`; empty: the etcd at `endpoints`. */
  readonly registry: string
  /** URLs, separated by commas. */
  readonly endpoints: string
  readonly prefix: string
  /** Paths of PEM files. */
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly user: string
  readonly password: string
  readonly kubernetes: KubernetesChoice
}

export interface KubernetesChoice {
  readonly apiUrl: string
  /** Path. */
  readonly kubeconfig: string
  readonly annotationPrefix: string
  /** Path of the network config. */
  readonly netConfig: string
}

/** Of an agent's registry. */
export interface RegistrySettings {
  /** Before its end that a lease is renewed. Milliseconds. */
  readonly renewMargin?: number
  /** Whether Kubernetes is told that the node has a network. */
  readonly setNetworkUnavailable?: boolean
  readonly observe?: RegistryObserver
}

/** @throws {RegistryError} `invalid` */
export async function openRegistry(
  choice: RegistryChoice,
  settings: RegistrySettings = {},
): Promise<LeaseRegistry & RegistryAdmin> {
  const address = choice.registry === '' ? undefined : parseRegistryAddress(choice.registry)
  if (address?.kind === 'sqlite') {
    const { SqliteRegistry } = await import('../lease/sqlite.ts')
    return new SqliteRegistry(address.path, settings)
  }
  if (address?.kind === 'kubernetes') {
    const { KubernetesRegistry } = await import('../lease/kubernetes/registry.ts')
    return KubernetesRegistry.open({ ...choice.kubernetes, variables: process.env, ...settings })
  }
  const endpoints = address?.endpoints ?? choice.endpoints.split(',').map((endpoint) => endpoint.trim())
  const { EtcdRegistry } = await import('../lease/etcd/registry.ts')
  return new EtcdRegistry({ ...etcdOptions(choice), endpoints, ...settings })
}

/** Whether TLS is used at all is said by the endpoints: `https`. */
function etcdOptions({
  prefix,
  ca,
  cert,
  key,
  user,
  password,
}: RegistryChoice): Omit<EtcdOptions, 'endpoints'> {
  const files = { ...(ca !== '' && { ca }), ...(cert !== '' && { cert }), ...(key !== '' && { key }) }
  return {
    prefix,
    ...(Object.keys(files).length > 0 && { tls: files }),
    ...(user !== '' && { login: { user, password } }),
  }
}
