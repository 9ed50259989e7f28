"use strict";

const root = document.getElementById("swagger-ui");

SwaggerUIBundle({
  domNode: root,
  url: root.dataset.document,
  deepLinking: true,
  validatorUrl: null, // the default asks a server on the internet
});
