/** The wireguard backend on the kernel's own WireGuard. */

import { describeWireguardBackend } from '../wireguard-backend.ts'

describeWireguardBackend('kernel')
