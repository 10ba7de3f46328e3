/** Which registry a command works on: `--registry`. */

import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  type LeaseRegistry,
  parseRegistryAddress,
  type RegistryAdmin,
  RegistryError,
} from '../lease/registry.ts'
import { SqliteRegistry } from '../lease/sqlite.ts'

const DEFAULT_REGISTRY = 'sqlite:/var/lib/tweed/registry.db'

type AdminRegistry = LeaseRegistry & RegistryAdmin

/** Adds `--registry sqlite:PATH` to a command; its value is the path. */
export function withRegistry(command: Command): Command {
  const option = new Option('--registry <name>', 'sqlite:PATH: the file that the agents of one machine share')
  return command.addOption(
    option.argParser(sqlitePath).default(sqlitePath(DEFAULT_REGISTRY), DEFAULT_REGISTRY),
  )
}

/** Opens the registry for as long as `work` takes. */
export async function useRegistry<T>(
  path: string,
  work: (registry: AdminRegistry) => Promise<T>,
): Promise<T> {
  const registry = new SqliteRegistry(path)
  try {
    return await work(registry)
  } finally {
    await registry.close()
  }
}

function sqlitePath(name: string): string {
  try {
    return parseRegistryAddress(name).path
  } catch (error) {
    if (error instanceof RegistryError) throw new InvalidArgumentError(`${error.message}.`)
    throw error
  }
}
