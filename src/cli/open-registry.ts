/** Which registry: one SQLite file, or etcd. A client library is loaded for the one that is used. */

import {
  type LeaseRegistry,
  parseRegistryAddress,
  type RegistryAdmin,
  RegistryError,
} from '../lease/registry.ts'

/** As flags say it; an empty text says nothing. */
export interface RegistryChoice {
  /** `sqlite:PATH`; empty: etcd. */
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
}

/** @param renewMargin In milliseconds. @throws {RegistryError} `invalid` */
export async function openRegistry(
  choice: RegistryChoice,
  renewMargin?: number,
): Promise<LeaseRegistry & RegistryAdmin> {
  if (choice.registry === '')
    throw new RegistryError('invalid', 'etcd is not in this version: say -registry=sqlite:PATH')
  const { path } = parseRegistryAddress(choice.registry)
  const { SqliteRegistry } = await import('../lease/sqlite.ts')
  return new SqliteRegistry(path, renewMargin === undefined ? {} : { renewMargin })
}
