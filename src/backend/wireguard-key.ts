/** The private key of this host, in a file: the only thing that the wireguard backend needs of the machine. */

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { formatKey, KEY_BYTES, parseKey, Secret, WireguardKeyError } from '../address/key.ts'
import type { NetworkConfig } from '../config/network-config.ts'
import { type Backend, BackendError, type HostFacts } from './backend.ts'
import { checkWireguard, wireguard } from './wireguard.ts'

/** Where flannel keeps it. In /run: with a reboot the host has another key. */
const DEFAULT_FILE = '/run/flannel/wgkey'

/** @throws {ConfigError} {@link BackendError} when the key cannot be had. */
export async function openWireguard(config: NetworkConfig, host: HostFacts): Promise<Backend> {
  checkWireguard(config, host)
  const file = process.env['WIREGUARD_KEY_FILE'] || DEFAULT_FILE
  return wireguard(config, host, await readOrMakeKey(file))
}

/** The key in the file; a new one, which is then in the file, if there is none. @throws {BackendError} */
export async function readOrMakeKey(file: string): Promise<Secret> {
  try {
    return (await readKey(file)) ?? (await makeKey(file))
  } catch (error) {
    if (error instanceof WireguardKeyError) {
      throw new BackendError(`the WireGuard key file ${file} has no key in it: ${error.message}`)
    }
    if (!(error instanceof Error)) throw error
    throw new BackendError(`the WireGuard key file ${file} cannot be used: ${error.message}`, {
      cause: error,
    })
  }
}

/** Undefined when there is no file. @throws {WireguardKeyError} and what the file system says. */
async function readKey(file: string): Promise<Secret | undefined> {
  try {
    return new Secret(parseKey((await readFile(file, 'latin1')).trim()))
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

/** The file appears whole or not at all, and if another agent was first, its key is the key. */
async function makeKey(file: string): Promise<Secret> {
  await mkdir(dirname(file), { recursive: true, mode: 0o755 })
  const draft = `${file}.${randomBytes(6).toString('hex')}`
  try {
    const handle = await open(draft, 'wx', 0o400)
    try {
      await handle.writeFile(generateKey())
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await unlink(draft).catch(() => undefined)
  }
  const key = await readKey(file)
  if (key === undefined) throw new Error('it was removed as it was made')
  return key
}

/** What `wg genkey` prints, without the end of the line, as flannel writes it. */
function generateKey(): string {
  const { privateKey } = generateKeyPairSync('x25519')
  return formatKey(privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-KEY_BYTES))
}
