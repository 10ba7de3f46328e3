/** subnet.env: what the agent tells Docker and CNI plugins, and how it remembers its subnets over a restart. */

import { randomUUID } from 'node:crypto'
import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { parseEnv } from 'node:util'
import { AddressError, type Family, ipFromNumber, ipToNumber, type PerFamily } from '../address/ip.ts'
import { type Prefix, parsePrefix, prefixBase, prefixFamily, prefixLength } from '../address/prefix.ts'

export interface SubnetFile {
  readonly networks: PerFamily<Prefix>
  readonly subnets: PerFamily<Prefix>
  /** Bytes that a container may put into one packet. */
  readonly mtu: number
  readonly ipMasquerade: boolean
}

const FAMILIES = [
  { family: 'inet', name: 'FLANNEL' },
  { family: 'inet6', name: 'FLANNEL_IPV6' },
] as const satisfies readonly { family: Family; name: string }[]

/** flannel's lines in flannel's order. The subnet carries its first host address, which becomes the bridge's. */
export function formatSubnetFile({ networks, subnets, mtu, ipMasquerade }: SubnetFile): string {
  const lines: string[] = []
  for (const { family, name } of FAMILIES) {
    const network = networks[family]
    const subnet = subnets[family]
    if (network === undefined || subnet === undefined) continue
    const gateway = ipFromNumber(ipToNumber(prefixBase(subnet)) + 1n, family)
    lines.push(`${name}_NETWORK=${network}`, `${name}_SUBNET=${gateway}/${prefixLength(subnet)}`)
  }
  lines.push(`FLANNEL_MTU=${mtu}`, `FLANNEL_IPMASQ=${ipMasquerade}`)
  return `${lines.join('\n')}\n`
}

/**
 * The subnets in a subnet.env, whoever wrote it. It is a hint and never an error: entries that are no subnet are
 * skipped, and of a list that leaves more than one, none is taken.
 */
export function parseSubnetFile(text: string): PerFamily<Prefix> {
  const values = parseEnv(text)
  const subnets: Partial<Record<Family, Prefix>> = {}
  for (const { family, name } of FAMILIES) {
    const entries = (values[`${name}_SUBNET`] ?? '')
      .split(',')
      .flatMap((entry) => parseSubnet(entry.trim(), family))
    const [subnet] = entries
    if (subnet !== undefined && entries.length === 1) subnets[family] = subnet
  }
  return subnets
}

/** The subnets held before; none when there is no file. */
export async function readSubnetFile(path: string): Promise<PerFamily<Prefix>> {
  return parseSubnetFile((await readText(path)) ?? '')
}

/**
 * Whether the file had to change: those who watch it are not woken for nothing. It is replaced in one step, because
 * a CNI plugin may read it at any moment.
 */
export async function writeSubnetFile(path: string, content: SubnetFile): Promise<boolean> {
  const text = formatSubnetFile(content)
  if ((await readText(path)) === text) return false
  await mkdir(dirname(path), { recursive: true, mode: 0o755 })
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}`)
  try {
    await writeFile(temporary, text, { flag: 'wx' })
    await chmod(temporary, 0o644)
    await rename(temporary, path)
  } finally {
    await rm(temporary, { force: true })
  }
  return true
}

function parseSubnet(entry: string, family: Family): Prefix[] {
  try {
    const subnet = parsePrefix(entry)
    return prefixFamily(subnet) === family ? [subnet] : []
  } catch (error) {
    if (error instanceof AddressError) return []
    throw error
  }
}

/** Undefined when there is no such file. */
export async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
